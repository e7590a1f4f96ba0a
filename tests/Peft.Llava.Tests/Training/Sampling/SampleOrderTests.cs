using Peft.Llava;
using Xunit;

namespace Peft.Llava.Tests.Training;

public sealed class SampleOrderTests
{
    [Fact]
    public void A_restored_state_gives_the_following_epochs()
    {
        var order = new SampleOrder(SampleOrdering.Shuffled, 13, 7);
        order.NextEpoch();
        var state = order.State;
        int[] expected = order.NextEpoch();
        var other = new SampleOrder(SampleOrdering.Shuffled, 13, 1);
        other.Restore(state);
        Assert.Equal(expected, other.NextEpoch());
    }

    [Fact]
    public void Sequential_order_is_the_data_sets()
        => Assert.Equal([0, 1, 2, 3], new SampleOrder(SampleOrdering.Sequential, 4, 3).NextEpoch());

    [Fact]
    public void Every_ordering_gives_every_sample_once()
    {
        int[] lengths = [3, -4, 5, 6, -7, -2, 9];
        foreach (var ordering in Enum.GetValues<SampleOrdering>())
            Assert.Equal(Enumerable.Range(0, 7), new SampleOrder(ordering, 7, 5, lengths, 2, 2).NextEpoch().Order());
    }

    [Fact]
    public void An_empty_set_is_refused()
        => Assert.Equal("The data set is empty. Check the path and the filter it was read with.",
            Assert.Throws<TrainingDataException>(() => new SampleOrder(SampleOrdering.Shuffled, 0, 1)).Message);

    [Fact]
    public void Lengths_that_do_not_fit_are_refused()
        => Assert.Equal("Ordering by length needs a length for each of the 3 samples; 2 were given. "
            + "Give the data set's lengths, or order by SampleOrdering.Shuffled.",
            Assert.Throws<TrainingDataException>(() => new SampleOrder(SampleOrdering.ByLength, 3, 1, [4, 5])).Message);

    [Fact]
    public void A_length_of_zero_is_refused()
        => Assert.Equal("Sample number 1 has length 0, so it belongs to neither kind of group_by_modality_length. Give it text, or leave it out.",
            Assert.Throws<TrainingDataException>(() => LengthGrouping.ByModality([4, 0, -3], 1, 1, new TorchRandom(1))).Message);

    [Fact]
    public void A_foreign_random_state_is_refused()
        => Assert.Contains("a random state has 625 words and ends in a position up to 624; this one has 2 words and ends in 9",
            Assert.Throws<TrainingOptionsException>(() => TorchRandom.Restore([1, 9])).Message, StringComparison.Ordinal);
}
