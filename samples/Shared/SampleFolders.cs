namespace Peft.Samples;

/// <summary>Where the samples' data lies and where results go.</summary>
internal static class SampleFolders
{
    /// <summary>samples/data, found from the program's own folder upwards.</summary>
    public static string Data()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            string data = Path.Combine(folder.FullName, "samples", "data");
            if (File.Exists(Path.Combine(data, "emoji.json"))) return data;
        }
        throw new DirectoryNotFoundException($"No folder above {AppContext.BaseDirectory} holds samples/data. Run the sample from a clone of the repository.");
    }

    /// <summary>out/NAME below the current folder; made if need be.</summary>
    public static string Output(string name) => Directory.CreateDirectory(Path.Combine(Directory.GetCurrentDirectory(), "out", name)).FullName;

    /// <summary>The bytes of all files in a folder.</summary>
    public static long Bytes(string folder) => new DirectoryInfo(folder).EnumerateFiles("*", SearchOption.AllDirectories).Sum(f => f.Length);
}
