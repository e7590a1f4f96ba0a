namespace Peft.Llava;

/// <summary>What is checked of a record while a data file is read, beside its form.</summary>
[Flags]
public enum RecordChecks
{
    /// <summary>Nothing, as LLaVA does: faults appear when the sample is encoded, or not at all.</summary>
    None = 0,

    /// <summary>Every turn is from <c>human</c> or <c>gpt</c>.</summary>
    Speakers = 1,

    /// <summary>Every turn has text.</summary>
    Values = 2,

    /// <summary>Speakers alternate. A first turn of <c>gpt</c> is allowed: LLaVA leaves it out.</summary>
    Order = 4,

    /// <summary>There is one image placeholder per image.</summary>
    Placeholders = 8,

    /// <summary>No two records have the same id. Not among the defaults: LLaVA's own files name records after their picture, several times.</summary>
    UniqueIds = 16,

    /// <summary>All but <see cref="UniqueIds"/>.</summary>
    Default = Speakers | Values | Order | Placeholders,

    /// <summary>All.</summary>
    All = Default | UniqueIds,
}
