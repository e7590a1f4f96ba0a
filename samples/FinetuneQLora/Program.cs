using FinetuneQLora;
using Peft.Core;
using Peft.Quantization;

// Without arguments: LoRA on an NF4 base, on the data in samples/data. --bits 8: the same on an int8 base. For LLaVA's own flags, --bits
// among them, see FinetuneLora.
QuantizationConfig? config = args switch
{
    [] or ["--bits", "4"] => QuantizationConfig.Nf4(),
    ["--bits", "8"] => QuantizationConfig.Int8(),
    _ => null,
};
if (config is null)
{
    Console.Error.WriteLine("usage: FinetuneQLora [--bits 4|8]");
    return 2;
}
try
{
    using var stop = new InterruptToken(() => Console.Error.WriteLine("Ending after this step; once more ends at once."));
    PeftEnvironment.EnsureLibtorch();
    return new QLoraJob(config, stop.Token).Run();
}
catch (PeftException e)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}
