[assembly: Peft.Testing.SeedEachTest]
