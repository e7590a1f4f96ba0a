#!/usr/bin/env bash
# at-level.sh LEVEL COMMAND...: runs a command at a lower level of the processor: vector128, avx2 or avx512.
# PEFT_CPU_LEVEL reaches libtorch and its libraries; .NET reads its own width when it starts, so it is set here.
set -euo pipefail
level=${1:?usage: at-level.sh vector128|avx2|avx512 COMMAND...}
shift
export PEFT_CPU_LEVEL=$level
case $level in
  vector128) export DOTNET_EnableAVX2=0 ;;
  avx2) export DOTNET_EnableAVX512=0 ;;
  avx512) ;;
  *) echo "at-level.sh: '$level' is none of vector128, avx2, avx512." >&2; exit 2 ;;
esac
exec "$@"
