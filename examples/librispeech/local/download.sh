#!/usr/bin/env bash
# Downloads parts of LibriSpeech, $2 and those that follow, from OpenSLR into the folder $1, which appears when all are there. Begun again,
# it goes on where it stopped.
set -euo pipefail

part=$1.part
mkdir -p "$part"
for name in "${@:2}"; do
  if [ -f "$part/$name.done" ]; then continue; fi
  wget -c -q -O "$part/$name.tar.gz" "https://www.openslr.org/resources/12/$name.tar.gz"
  tar -xzf "$part/$name.tar.gz" --strip-components=1 -C "$part"
  touch "$part/$name.done"
  rm "$part/$name.tar.gz"
done
rm "$part"/*.done
mv "$part" "$1"
