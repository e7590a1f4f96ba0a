using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Generates text after prompts with images: one pass over the prompts, then one token per sample and pass.</summary>
/// <remarks>
/// Several threads may generate on one model at the same time: each call has the adapters that act where it begins, to its end, and all that changes
/// during a generation belongs to the call. A model in training mode generates as in evaluation mode, and stays in training mode.
/// </remarks>
/// <param name="model">
/// The model; adapters that are on it take part, also one for each sample (<see cref="Peft.Core.PeftModel.WithAdaptersBySample"/>): samples that end
/// leave the batch and take their adapters with them.
/// </param>
public sealed class TextGenerator(LlavaModel model)
{
    /// <summary>Generates.</summary>
    /// <param name="prompts">The prompts; samples of different lengths need no padding.</param>
    /// <param name="options">How; null for greedy.</param>
    /// <param name="cancellationToken">Asked before every token.</param>
    /// <returns>The new ids of each sample.</returns>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public GenerationResult Generate(LlavaBatch prompts, GenerationOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(prompts);
        options ??= new GenerationOptions();
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(options.MaxNewTokens);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        using var pass = model.BeginGeneration();
        var kept = new List<Tensor>();
        try
        {
            return new GenerationResult(Run(prompts, options, kept, cancellationToken), kept);
        }
        catch
        {
            kept.ForEach(scores => scores.Dispose());
            throw;
        }
    }

    private List<List<int>> Run(LlavaBatch prompts, GenerationOptions options, List<Tensor> kept, CancellationToken cancellationToken)
    {
        int count = prompts.Layout.Count, longest = prompts.Layout.PaddedLength;
        using var cache = new KeyValueCache(model.Config.Language, count, longest + options.MaxNewTokens, model.Dtype, model.Device);
        using var generator = options.Sampling is { } sampling ? new Generator((ulong)sampling.Seed, model.Device) : null;
        var eos = (options.EosTokenIds ?? model.Config.Language.EosTokenIds).ToHashSet();
        var seen = new SeenTokens(prompts, options, model.Config);
        var rows = Enumerable.Range(0, count).Select(_ => new List<int>()).ToList();
        var active = Enumerable.Range(0, count).ToList();
        for (int step = 0; step < options.MaxNewTokens && active.Count > 0; step++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            var logits = step == 0
                ? model.Prefill(prompts, cache, options.ReadFirstTokenAtPadding)
                : model.Step([.. active.Select(r => (long)rows[r][^1])], active, cache, longest + step);
            var scores = options.RepetitionPenalty == 1 ? logits : ScoreProcessing.RepetitionPenalty(logits, seen.Of(active), options.RepetitionPenalty);
            if (options.Sampling is not null) scores = ScoreProcessing.Warp(scores, options.Sampling);
            var chosen = Choose(scores, generator);
            if (options.KeepScores) kept.Add(Spread(scores, active, count).DetachFromDisposeScope());
            var told = new int?[count];
            for (int i = 0; i < chosen.Length; i++)
            {
                told[active[i]] = chosen[i];
                rows[active[i]].Add(chosen[i]);
                seen.Add(active[i], chosen[i]);
            }
            options.OnStep?.Invoke(new GenerationStep(step, told));
            active.RemoveAll(r => eos.Contains(rows[r][^1]) || options.ShouldStop?.Invoke(r, rows[r]) == true);
        }
        return rows;
    }

    private static int[] Choose(Tensor scores, Generator? generator)
    {
        using var scope = NewDisposeScope();
        var ids = generator is null ? scores.argmax(1) : multinomial(scores.softmax(-1), 1, generator: generator).squeeze(1);
        return [.. ids.cpu().data<long>().Select(id => (int)id)];
    }

    private static Tensor Spread(Tensor scores, List<int> active, int count)
    {
        if (active.Count == count) return scores.clone();
        using var rows = tensor(active.Select(r => (long)r).ToArray(), device: scores.device);
        return zeros([count, scores.shape[1]], scores.dtype, scores.device).index_copy_(0, rows, scores);
    }

    /// <summary>The ids that the repetition penalty knows of.</summary>
    private sealed class SeenTokens
    {
        private readonly List<HashSet<long>> _rows;

        public SeenTokens(LlavaBatch prompts, GenerationOptions options, LlavaConfig config)
        {
            var layout = prompts.Layout;
            var scope = options.PenaltyScope ?? (config.Layout == CheckpointLayout.Original ? PenaltyScope.Generated : PenaltyScope.PromptAndGenerated);
            long[] ids = options.RepetitionPenalty != 1 && scope == PenaltyScope.PromptAndGenerated ? [.. prompts.TokenIds.cpu().data<long>()] : [];
            _rows = [.. Enumerable.Range(0, layout.Count).Select(r => scope == PenaltyScope.Generated
                ? [config.Language.BosTokenId]
                : ids.Skip(layout.Offsets[r]).Take(layout.Lengths[r]).ToHashSet())];
        }

        public void Add(int row, long id) => _rows[row].Add(id);

        /// <summary>I64 (rows, L): each row's ids, filled up with its first.</summary>
        public Tensor Of(List<int> rows)
        {
            int longest = rows.Max(r => _rows[r].Count);
            var flat = rows.SelectMany(r => _rows[r].Concat(Enumerable.Repeat(_rows[r].First(), longest - _rows[r].Count))).ToArray();
            return tensor(flat, [rows.Count, longest]);
        }
    }
}
