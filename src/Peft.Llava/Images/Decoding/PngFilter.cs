namespace Peft.Llava;

/// <summary>Undoes the five row filters of PNG.</summary>
internal static class PngFilter
{
    /// <summary>Undoes a filter in place.</summary>
    /// <param name="filter">The row's filter byte.</param>
    /// <param name="row">The row's bytes without the filter byte.</param>
    /// <param name="above">The row above, unfiltered; zeros for the first one.</param>
    /// <param name="step">Bytes per pixel, at least 1.</param>
    /// <returns>False if there is no such filter.</returns>
    public static bool Undo(byte filter, Span<byte> row, ReadOnlySpan<byte> above, int step)
    {
        switch (filter)
        {
            case 0:
                return true;
            case 1:
                for (int i = step; i < row.Length; i++) row[i] += row[i - step];
                return true;
            case 2:
                for (int i = 0; i < row.Length; i++) row[i] += above[i];
                return true;
            case 3:
                for (int i = 0; i < Math.Min(step, row.Length); i++) row[i] += (byte)(above[i] >> 1);
                for (int i = step; i < row.Length; i++) row[i] += (byte)((row[i - step] + above[i]) >> 1);
                return true;
            case 4:
                for (int i = 0; i < Math.Min(step, row.Length); i++) row[i] += above[i];
                for (int i = step; i < row.Length; i++) row[i] += Paeth(row[i - step], above[i], above[i - step]);
                return true;
            default:
                return false;
        }
    }

    private static byte Paeth(int left, int up, int corner)
    {
        int toLeft = Math.Abs(up - corner), toUp = Math.Abs(left - corner), toCorner = Math.Abs(left + up - 2 * corner);
        if (toLeft <= toUp && toLeft <= toCorner) return (byte)left;
        return (byte)(toUp <= toCorner ? up : corner);
    }
}
