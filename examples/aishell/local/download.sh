#!/usr/bin/env bash
# Downloads AISHELL-1 (15 GB) from OpenSLR into the folder $1, which appears when all is there. Begun again, it goes on where it stopped.
set -euo pipefail

part=$1.part
mkdir -p "$part"
for name in resource_aishell data_aishell; do
  wget -c -q -O "$part/$name.tgz" "https://www.openslr.org/resources/33/$name.tgz"
  tar -xzf "$part/$name.tgz" -C "$part"
done
for archive in "$part"/data_aishell/wav/*.tar.gz; do  # one per speaker
  tar -xzf "$archive" -C "$part/data_aishell/wav"
  rm "$archive"
done
rm "$part"/*.tgz
mv "$part" "$1"
