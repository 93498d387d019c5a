#!/usr/bin/env bash
# Downloads parts of LibriSpeech, $2 and those that follow, from OpenSLR into the folder $1, which gets them when all are there. Begun again,
# it goes on where it stopped.
set -euo pipefail

part=$1.part
mkdir -p "$part"
for name in "${@:2}"; do
  if [ -f "$part/$name.done" ] || [ -d "$1/$name" ]; then continue; fi
  wget -c -q -O "$part/$name.tar.gz" "https://www.openslr.org/resources/12/$name.tar.gz"
  tar -xzf "$part/$name.tar.gz" --strip-components=1 -C "$part"
  touch "$part/$name.done"
  rm "$part/$name.tar.gz"
done
rm -f "$part"/*.done
if [ -d "$1" ]; then  # parts that an earlier run did not ask for
  find "$part" -mindepth 1 -maxdepth 1 -exec mv -n -t "$1" {} +
  rm -r "$part"
else
  mv "$part" "$1"
fi
