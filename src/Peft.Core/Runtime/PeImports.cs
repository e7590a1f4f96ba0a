using System.Reflection.PortableExecutable;

namespace Peft.Core;

/// <summary>The libraries that a Windows library imports.</summary>
internal static class PeImports
{
    private const int DescriptorBytes = 20;
    private const int NameField = 12;

    /// <returns>Null if the stream holds no PE file.</returns>
    public static IReadOnlyList<string>? TryRead(Stream stream)
    {
        try
        {
            using var reader = new PEReader(stream, PEStreamOptions.LeaveOpen);
            if (reader.PEHeaders.PEHeader is not { } header) return null;
            int table = header.ImportTableDirectory.RelativeVirtualAddress;
            var libraries = new List<string>();
            if (table == 0) return libraries;
            var descriptors = reader.GetSectionData(table).GetReader();
            while (descriptors.RemainingBytes >= DescriptorBytes)
            {
                descriptors.Offset += NameField;
                int name = descriptors.ReadInt32();
                descriptors.Offset += sizeof(int);
                if (name == 0) break;
                var text = reader.GetSectionData(name).GetReader();
                int end = text.IndexOf(0);
                if (end > 0) libraries.Add(text.ReadUTF8(end));
            }
            return libraries;
        }
        catch (BadImageFormatException)
        {
            return null;
        }
    }
}
