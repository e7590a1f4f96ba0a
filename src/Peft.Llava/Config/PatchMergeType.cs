namespace Peft.Llava;

/// <summary>How the tiles of one image become a row of features (LLaVA's <c>mm_patch_merge_type</c>).</summary>
public enum PatchMergeType
{
    /// <summary>Tile after tile.</summary>
    Flat,

    /// <summary>The base image, then the stitched map of the tiles, row by row.</summary>
    Spatial,

    /// <summary>As <see cref="Spatial"/>, without the rows and columns that only hold padding, each row ended by <c>image_newline</c>.</summary>
    SpatialUnpad,
}
