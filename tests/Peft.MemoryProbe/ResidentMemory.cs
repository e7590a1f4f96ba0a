using System.Buffers.Text;
using Microsoft.Win32.SafeHandles;

namespace Peft.MemoryProbe;

/// <summary>Samples the process's anonymous resident memory (Linux) and remembers the most. It allocates nothing, so as not to disturb.</summary>
internal sealed class ResidentMemory : IDisposable
{
    private readonly byte[] _text = new byte[4096];
    private readonly SafeFileHandle _status = File.OpenHandle("/proc/self/status");
    private readonly ManualResetEvent _stop = new(false);
    private readonly Thread _thread;
    private long _peak;

    public ResidentMemory()
    {
        _thread = new Thread(Watch) { IsBackground = true };
        _thread.Start();
    }

    /// <summary>The most bytes seen since the last call.</summary>
    public long TakePeak() => Interlocked.Exchange(ref _peak, 0);

    /// <summary>Bytes at the last look.</summary>
    public long Last { get; private set; }

    public void Dispose()
    {
        _stop.Set();
        _thread.Join();
        _stop.Dispose();
        _status.Dispose();
    }

    private void Watch()
    {
        do
        {
            Last = Read();
            if (Last > Interlocked.Read(ref _peak)) Interlocked.Exchange(ref _peak, Last);
        }
        while (!_stop.WaitOne(2));
    }

    private long Read()
    {
        var text = _text.AsSpan(0, RandomAccess.Read(_status, _text, 0));
        text = text[(text.IndexOf("RssAnon:"u8) + 8)..].TrimStart((byte)' ').TrimStart((byte)'\t').TrimStart((byte)' ');
        return Utf8Parser.TryParse(text, out long kilobytes, out _) ? kilobytes * 1024 : 0;
    }
}
