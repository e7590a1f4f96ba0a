namespace Peft.Testing;

/// <summary>Finds the repository from the tests' output folder.</summary>
public static class Repository
{
    /// <summary>The folder that holds Peft.Llava.sln.</summary>
    public static string Root { get; } = Find();

    private static string Find()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
            if (File.Exists(Path.Combine(folder.FullName, "Peft.Llava.sln"))) return folder.FullName;
        throw new DirectoryNotFoundException($"No folder above {AppContext.BaseDirectory} holds Peft.Llava.sln.");
    }
}
