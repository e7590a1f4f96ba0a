using System.Text.RegularExpressions;
using Peft.Core;
using Xunit;

namespace Peft.Boundary.Tests;

public sealed partial class ExceptionTests
{
    /// <summary>Exceptions of .NET that say "the caller's code is wrong", not "the input is wrong".</summary>
    private static readonly HashSet<string> CallerFaults =
    [
        "ArgumentException", "ArgumentNullException", "ArgumentOutOfRangeException", "ObjectDisposedException", "InvalidOperationException",
        "NotSupportedException", "OperationCanceledException", "UnreachableException", "EndOfStreamException", "AggregateException",
        "JsonException",   // in the same style as the JSON reader's own, and caught with it
        "OptionsValidationException",   // what a host waits for when it checks its options
    ];

    /// <summary>Where a cancellation carries data it is still a cancellation to .NET.</summary>
    private static bool IsOurs(Type type) => typeof(PeftException).IsAssignableFrom(type) || (typeof(OperationCanceledException).IsAssignableFrom(type) && type.IsSealed);

    [Fact]
    public void Every_exception_of_ours_derives_from_the_one_root()
    {
        var strays = Packages.All.SelectMany(a => a.GetTypes())
            .Where(t => typeof(Exception).IsAssignableFrom(t) && t.IsPublic && !IsOurs(t));
        Check.None(strays.Select(t => t.FullName!));
    }

    [Fact]
    public void Every_exception_of_ours_is_sealed_or_abstract()
        => Check.None(Packages.All.SelectMany(a => a.GetTypes())
            .Where(t => typeof(PeftException).IsAssignableFrom(t) && !t.IsSealed && !t.IsAbstract && !HasHeirs(t)).Select(t => t.FullName!));

    [Fact]
    public void The_text_of_every_exception_of_ours_is_read_by_a_test()
    {
        // Where a test names the type, it reads the message in that line or soon after.
        var read = new HashSet<string>();
        foreach (string[] lines in RepositoryFiles.Sources("tests").Select(f => RepositoryFiles.Text(f).Split('\n')))
        {
            for (int i = 0; i < lines.Length; i++)
            {
                var names = Name().Matches(lines[i]).Select(m => m.Value).ToList();
                if (names.Count > 0 && lines.Skip(i).Take(9).Any(l => l.Contains(".Message", StringComparison.Ordinal))) read.UnionWith(names);
            }
        }
        var unread = Packages.All.SelectMany(a => a.GetTypes()).Where(t => typeof(PeftException).IsAssignableFrom(t) && !t.IsAbstract && t.IsPublic && !HasHeirs(t) && !read.Contains(t.Name));
        Check.None(unread.Select(t => t.FullName!));
    }

    [Fact]
    public void No_test_is_content_with_the_type_of_an_exception()
    {
        // A leak test repeats what another test has looked at.
        var ours = Packages.All.SelectMany(a => a.GetTypes()).Where(IsOurs).Select(t => t.Name).ToHashSet();
        Check.None(from file in RepositoryFiles.Sources("tests")
                   from Match thrown in Discarded().Matches(RepositoryFiles.Text(file))
                   where ours.Contains(thrown.Groups["name"].Value)
                   select $"{file}: {thrown.Value.Trim()}");
    }

    [Fact]
    public void The_libraries_throw_exceptions_of_ours_or_name_a_fault_of_the_caller()
    {
        var ours = Packages.All.SelectMany(a => a.GetTypes()).Where(IsOurs).Select(t => t.Name).ToHashSet();
        var strays = from file in RepositoryFiles.Sources("src")
                     from Match thrown in ThrowNew().Matches(RepositoryFiles.Text(file))
                     let name = thrown.Groups[1].Value
                     where !ours.Contains(name) && !CallerFaults.Contains(name)
                     select $"{file}: throw new {name}";
        Check.None(strays);
    }

    private static bool HasHeirs(Type type) => Packages.All.SelectMany(a => a.GetTypes()).Any(t => t.BaseType == type);

    [GeneratedRegex(@"\b\w+Exception\b")]
    private static partial Regex Name();

    // As a statement, or as the whole of a test; the parentheses are counted.
    [GeneratedRegex(@"(?:(?<![,(+=>?:]\s*)|(?<=public void \w+\([^)]*\)\s*=>\s*))Assert\.Throws(?:Any)?<(?:\w+\.)*(?<name>\w+)>\((?>[^()]|(?<open>\()|(?<-open>\)))*(?(open)(?!))\);")]
    private static partial Regex Discarded();

    [GeneratedRegex(@"throw new (?:\w+\.)*(\w+)\s*[({]")]
    private static partial Regex ThrowNew();
}
