using System.Runtime.InteropServices;

namespace Peft.Llava;

/// <summary>
/// Joins a row of symbols: again and again the neighbouring pair of the lowest rank, the leftmost of equals. Short rows (words) look for the
/// lowest rank one by one; long ones use a priority queue over linked symbols, O(n log n).
/// </summary>
internal sealed class BpeMerger(Dictionary<ulong, BpeMerge> merges)
{
    private const int MostScanned = 48;
    private const int NoMerge = int.MaxValue;

    private readonly List<Node> _nodes = [];
    private readonly PriorityQueue<Candidate, long> _queue = new();

    /// <summary>One symbol: it begins at a position of the text; -1 stands for an unknown character.</summary>
    public void Add(int symbol, int start)
    {
        int index = _nodes.Count;
        _nodes.Add(new Node(symbol, start, index - 1, index + 1));
    }

    /// <summary>Joins what was added, hands the symbols that remain to a receiver, and is empty again.</summary>
    /// <param name="end">Where the text of the last symbol ends.</param>
    /// <param name="receive">Called with symbol, start and end, in order.</param>
    public void Drain(int end, Action<int, int, int> receive)
    {
        var nodes = CollectionsMarshal.AsSpan(_nodes);
        if (nodes.Length <= MostScanned) nodes = nodes[..Scan(nodes)];
        else JoinQueued(nodes);
        for (int i = 0; i < nodes.Length; i = nodes[i].Next)
            receive(nodes[i].Symbol, nodes[i].Start, nodes[i].Next < nodes.Length ? nodes[nodes[i].Next].Start : end);
        _nodes.Clear();
    }

    /// <summary>Joins a short row in place and returns the number of symbols left.</summary>
    private int Scan(Span<Node> nodes)
    {
        Span<BpeMerge> pairs = stackalloc BpeMerge[MostScanned];
        int count = nodes.Length;
        for (int i = 0; i + 1 < count; i++) pairs[i] = Pair(nodes[i].Symbol, nodes[i + 1].Symbol);
        while (true)
        {
            int best = -1, rank = NoMerge;
            for (int i = 0; i + 1 < count; i++)
                if (pairs[i].Rank < rank) (best, rank) = (i, pairs[i].Rank);
            if (best < 0) break;
            nodes[best].Symbol = pairs[best].Symbol;
            count--;
            for (int i = best + 1; i < count; i++)
            {
                nodes[i].Symbol = nodes[i + 1].Symbol;
                nodes[i].Start = nodes[i + 1].Start;
                pairs[i] = pairs[i + 1];
            }
            if (best > 0) pairs[best - 1] = Pair(nodes[best - 1].Symbol, nodes[best].Symbol);
            if (best + 1 < count) pairs[best] = Pair(nodes[best].Symbol, nodes[best + 1].Symbol);
        }
        return count;
    }

    private BpeMerge Pair(int left, int right)
        => left >= 0 && right >= 0 && merges.TryGetValue(BpeModel.Key(left, right), out var merge) ? merge : new BpeMerge(NoMerge, -1);

    private void JoinQueued(Span<Node> nodes)
    {
        for (int i = 0; i + 1 < nodes.Length; i++) Propose(nodes, i, i + 1);
        while (_queue.TryDequeue(out var best, out _))
        {
            ref var left = ref nodes[best.Left];
            // A candidate is stale when either side has joined something else meanwhile.
            if (left.Symbol != best.LeftSymbol || left.Next != best.Right || nodes[best.Right].Symbol != best.RightSymbol) continue;
            ref var right = ref nodes[best.Right];
            left.Symbol = best.Joined;
            left.Next = right.Next;
            right.Symbol = Joined;
            if (left.Next < nodes.Length) nodes[left.Next].Previous = best.Left;
            if (left.Previous >= 0) Propose(nodes, left.Previous, best.Left);
            if (left.Next < nodes.Length) Propose(nodes, best.Left, left.Next);
        }
    }

    private const int Joined = int.MinValue;

    private void Propose(Span<Node> nodes, int left, int right)
    {
        int leftSymbol = nodes[left].Symbol, rightSymbol = nodes[right].Symbol;
        var merge = Pair(leftSymbol, rightSymbol);
        if (merge.Rank == NoMerge) return;
        _queue.Enqueue(new Candidate(left, right, leftSymbol, rightSymbol, merge.Symbol), ((long)merge.Rank << 32) | (uint)left);
    }

    private record struct Node(int Symbol, int Start, int Previous, int Next);

    private readonly record struct Candidate(int Left, int Right, int LeftSymbol, int RightSymbol, int Joined);
}
