#!/bin/sh
# Draws the smoke scene with this machine's kernels and with NEON under emulation, and compares.
# Needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu qemu-user).
set -e
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c++17 -O1 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-psabi -Icsrc -pthread"
parts="tests/kernels_smoke.cc csrc/ray/dispatch.cc csrc/ray/kernel.cc"
for part in bounds cache mesh setup texture; do
  [ -f "csrc/ray/$part.cc" ] && parts="$parts csrc/ray/$part.cc"
done
c++ $flags $parts -o "$out/plain"
aarch64-linux-gnu-g++ $flags -DVLMRM_NEON -static $parts -o "$out/neon"
"$out/plain" baseline > "$out/plain.ppm"
qemu-aarch64 "$out/neon" neon "$out/plain.ppm"
if [ -n "$1" ]; then cp "$out/plain.ppm" "$1"; fi
