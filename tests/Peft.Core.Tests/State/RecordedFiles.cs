using System.Buffers.Binary;
using System.Text;
using Peft.Testing;
using Xunit;

namespace Peft.Core.Tests;

/// <summary>The files among the recorded cases that PyTorch and safetensors wrote.</summary>
public static class RecordedFiles
{
    /// <summary>Rows of one path each, for files with one of the endings; a predicate may leave some out.</summary>
    public static IEnumerable<TheoryDataRow<string>> Rows(Func<string, bool> pick, params string[] endings)
        => from root in Goldens.Roots
           from file in Directory.EnumerateFiles(root, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)
           where endings.Any(file.EndsWith) && pick(file)
           select new TheoryDataRow<string>(file) { TestDisplayName = Path.GetRelativePath(root, file), Label = "" };

    /// <summary>Some generators write the header with Python's json module instead of the library: with spaces after colons.</summary>
    public static bool WrittenByTheLibrary(string path)
    {
        using var stream = File.OpenRead(path);
        Span<byte> length = stackalloc byte[8];
        stream.ReadExactly(length);
        byte[] header = new byte[BinaryPrimitives.ReadInt64LittleEndian(length)];
        stream.ReadExactly(header);
        return !Encoding.UTF8.GetString(header).Contains("\"dtype\": ");
    }
}
