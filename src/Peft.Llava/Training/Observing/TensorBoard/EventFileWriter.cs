using System.Buffers.Binary;
using System.Globalization;
using System.Numerics;
using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// Writes a TensorBoard event file: records of length, masked CRC-32C of the length, protobuf message, masked CRC-32C of the message. Every
/// record is handed to the operating system at once, so that a running TensorBoard sees it and a killed process loses none.
/// </summary>
/// <remarks>Not for use by several threads at once.</remarks>
public sealed class EventFileWriter : IDisposable
{
    private readonly FileStream _file;
    private readonly TimeProvider _time;

    /// <summary>Starts a file of its own in a log folder; TensorBoard reads all files of a folder as one run.</summary>
    /// <param name="folder">The run's folder; made if it is missing.</param>
    /// <param name="time">The clock; null for the system's.</param>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public EventFileWriter(string folder, TimeProvider? time = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        _time = time ?? TimeProvider.System;
        _file = Open(folder, _time.GetUtcNow().ToUnixTimeSeconds());
        Append(EventMessage.Version(Now));
    }

    /// <summary>The file.</summary>
    public string Path => _file.Name;

    /// <summary>Writes the scalars of one step.</summary>
    /// <param name="step">The step.</param>
    /// <param name="values">Tags (<c>train/loss</c>; the part before the slash groups charts) and values, stored as float32.</param>
    /// <exception cref="FileWriteException">The operating system refused; the file holds whole records only, and the next can be written when the cause is removed.</exception>
    public void Write(long step, params IReadOnlyList<(string Tag, double Value)> values)
    {
        ArgumentNullException.ThrowIfNull(values);
        Append(EventMessage.Scalars(Now, step, values));
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private double Now => (_time.GetUtcNow() - DateTimeOffset.UnixEpoch).TotalSeconds;

    private static FileStream Open(string folder, long seconds)
    {
        string name = System.IO.Path.Combine(Directory.Exists(folder) ? folder : Create(folder),
            string.Create(CultureInfo.InvariantCulture, $"events.out.tfevents.{seconds:D10}.{Environment.MachineName}.{Environment.ProcessId}."));
        for (int number = 0; ; number++)
        {
            string path = name + number.ToString(CultureInfo.InvariantCulture);
            try
            {
                return new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.Read, bufferSize: 0);
            }
            catch (IOException) when (File.Exists(path))
            {
                // Another writer of this process began in the same second.
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new FileWriteException(path, e);
            }
        }
    }

    private static string Create(string folder)
    {
        try
        {
            return Directory.CreateDirectory(folder).FullName;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(folder, e);
        }
    }

    private void Append(byte[] message)
    {
        var record = new byte[message.Length + 16];
        BinaryPrimitives.WriteUInt64LittleEndian(record, (ulong)message.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(8), MaskedCrc(record.AsSpan(0, 8)));
        message.CopyTo(record, 12);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(12 + message.Length), MaskedCrc(message));
        LogFile.Append(_file, record);
    }

    /// <summary>CRC-32C, rotated and shifted as TFRecord files do, so that a checksum of data that holds checksums stays good.</summary>
    private static uint MaskedCrc(ReadOnlySpan<byte> data)
    {
        uint crc = uint.MaxValue;
        foreach (byte b in data) crc = BitOperations.Crc32C(crc, b);
        return unchecked(BitOperations.RotateRight(~crc, 15) + 0xa282ead8u);
    }
}
