using Peft.Core;

namespace Peft.Llava;

internal static class CheckpointFiles
{
    public static ITensorReader Open(string folder) => SafetensorsReader.Open(Path.Combine(folder, "model.safetensors"));
}
