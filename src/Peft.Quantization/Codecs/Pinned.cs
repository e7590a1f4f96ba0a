using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Peft.Quantization;

/// <summary>Addresses of arrays made by <c>GC.AllocateArray(pinned: true)</c>, which never move.</summary>
internal static unsafe class Pinned
{
    public static T* Pointer<T>(T[] array)
        where T : unmanaged
        => (T*)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(array));
}
