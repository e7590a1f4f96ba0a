#!/usr/bin/env bash
# Uses the packages as somebody else would: packs them into a local feed, makes a console application in an empty folder outside the
# repository that references Peft.Llava and a libtorch package, trains LoRA for three steps on the tiny random LLaVA and saves.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
# A version of its own, so that no cache can answer with an older package.
version=0.1.0-check.$(date +%s).$$
packages=$(dotnet nuget locals global-packages --list | sed 's/^[^:]*: //')
cleanup() {
  rm -rf "$work"
  for id in peft.core peft.quantization peft.llava; do rm -rf "${packages:?}/$id/$version"; done
}
trap cleanup EXIT

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) libtorch=libtorch-cpu-linux-x64 ;;
  Darwin-arm64) libtorch=libtorch-cpu-osx-arm64 ;;
  MINGW*-x86_64 | MSYS*-x86_64) libtorch=libtorch-cpu-win-x64 ;;
  *) echo "no libtorch CPU package is known for $(uname -s) $(uname -m)" >&2; exit 1 ;;
esac
libtorch_version=$(sed -n 's:.*<LibtorchVersion>\(.*\)</LibtorchVersion>.*:\1:p' "$root/Directory.Build.props")

echo "packing $version"
for project in Peft.Core Peft.Quantization Peft.Llava; do
  dotnet pack "$root/src/$project" -c Release -p:Version="$version" -p:PackageOutputPath="$work/feed" --artifacts-path "$work/build" -v quiet
done
ls "$work/feed"
for id in Peft.Core Peft.Quantization Peft.Llava; do
  for kind in nupkg snupkg; do
    [ -f "$work/feed/$id.$version.$kind" ] || { echo "$id.$version.$kind was not made" >&2; exit 1; }
  done
done

mkdir "$work/app"
cd "$work/app"
cat > NuGet.config <<XML
<?xml version="1.0" encoding="utf-8"?>
<configuration>
  <packageSources>
    <add key="peft-local" value="$work/feed" />
  </packageSources>
</configuration>
XML
dotnet new console --name App --output . > /dev/null
dotnet add package Peft.Llava --version "$version" > /dev/null
dotnet add package "$libtorch" --version "$libtorch_version" > /dev/null
cp "$root/scripts/ConsumerCheck.cs" Program.cs
dotnet run -c Release
for file in adapter_model.safetensors adapter_config.json non_lora_trainables.bin config.json; do
  [ -s "saved/$file" ] || { echo "saved/$file is missing" >&2; exit 1; }
done

for id in peft.core peft.quantization peft.llava; do
  if grep -i 'dependency id="\(libtorch\|TorchSharp-\)' "$packages/$id/$version/$id.nuspec"; then
    echo "$id depends on a libtorch, which is the application's to choose" >&2
    exit 1
  fi
done
echo "an application with no reference but Peft.Llava and $libtorch trained and saved"
