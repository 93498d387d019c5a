#!/usr/bin/env bash
# The Python environment of run.sh and test/run.sh. To be sourced; defines functions, runs nothing.

# True inside a virtual environment or a conda environment other than base.
environment_is_active() {
  [ -n "${VIRTUAL_ENV:-}" ] || { [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; }
}

python_is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Prints the first Python >= 3.11 on the path; $PYTHON, when set, is the only candidate.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14 python}; do
    if python_is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or newer is needed; found: $("${PYTHON:-python3}" --version 2>&1 | tail -n 1)." >&2
  echo "Install one (Debian 12: apt-get install python3 python3-venv), or name it: PYTHON=/path/to/python3.11 bash run.sh" >&2
  return 1
}

# Activates the environment: the active one if there is one, else .venv under $1, which is made if need be.
activate_environment() {
  local venv=$1/.venv python
  if environment_is_active; then
    if ! python_is_new_enough python; then
      echo "The active environment ${VIRTUAL_ENV:-$CONDA_PREFIX} has $(python --version 2>&1); Python 3.11 or newer is needed." >&2
      echo "Leave it (deactivate) to let run.sh make .venv, or activate a newer one." >&2
      return 1
    fi
    return
  fi
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || return 1
    echo "making $venv with $("$python" --version)"
    if ! "$python" -m venv --clear "$venv"; then
      rm -rf "$venv"
      echo "Could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv; then run this again." >&2
      return 1
    fi
  fi
  # shellcheck disable=SC1091
  . "$venv/bin/activate"
}

# Installs requirements file $2 of the checkout $1 into the active environment, once: the stamp holds the files' hash.
install_requirements() {
  local root=$1 file=$2 prefix stamp hash log
  prefix=$(python -c 'import sys; print(sys.prefix)') || return 1
  stamp=$prefix/.wenet_osum-$(echo "$file" | tr / -).stamp
  hash=$(cat "$root/$file" "$root/constraints.txt" | sha256sum | cut -d ' ' -f 1)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ]; then
    return
  fi
  log=$prefix/.wenet_osum-pip.log
  warn_of_full_disk "$prefix"
  echo "installing $file into $prefix (once; torch with its CUDA libraries is several GB); log: $log"
  local begin=$SECONDS
  if ! (set -o pipefail; PIP_RETRIES=${PIP_RETRIES:-10} PIP_DEFAULT_TIMEOUT=${PIP_DEFAULT_TIMEOUT:-120} PIP_DISABLE_PIP_VERSION_CHECK=1 \
        python -m pip install --no-input --progress-bar off -r "$root/$file" -c "$root/constraints.txt" 2>&1 | tee "$log" | show_progress); then
    echo "pip could not install $file; the last lines of $log:" >&2
    tail -n 15 "$log" >&2
    echo "A network fault: run the same command again, finished downloads are kept. A full disk: about 8 GB are needed." >&2
    return 1
  fi
  echo "$hash" > "$stamp"
  echo "installed $file in $((SECONDS - begin)) s"
}

# Says beforehand when the disk of folder $1 will hardly hold torch: pip finds out after a minute of downloads.
warn_of_full_disk() {
  local free_mb
  free_mb=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
  if [ "${free_mb:-8000}" -lt 8000 ]; then
    echo "Only $free_mb MB are free on the disk of $1; a first installation needs about 8,000." >&2
  fi
}

# Lets a few lines of pip through: what it fetches and when it unpacks.
show_progress() {
  sed -u -n -E 's/^ *(Downloading|Using cached) /  fetch /p; s/^Installing collected packages:.*/  unpack/p; s/^ERROR/  &/p'
}

# Says loudly when there is an NVIDIA card that this torch cannot use, and prints the pip line for a build that can.
check_driver() {
  local cuda build
  command -v nvidia-smi >/dev/null 2>&1 || return 0
  nvidia-smi >/dev/null 2>&1 || return 0
  if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    return
  fi
  cuda=$(nvidia-smi | sed -n -E 's/.*CUDA Version: *([0-9]+\.[0-9]+).*/\1/p' | head -n 1)
  build=$(driver_build "$cuda")
  {
    echo "**********************************************************************************************"
    echo "* There is an NVIDIA card, but its driver (CUDA ${cuda:-unknown}) does not run torch $(torch_build)."
    if [ -n "$build" ]; then
      echo "* This build fits (index URL: see Get Started on pytorch.org):"
      echo "*   python -m pip install --index-url \"\$PYTORCH_WHEELS/$build\" 'torch==2.11.*' 'torchaudio==2.11.*'"
    else
      echo "* No build of torch 2.11 fits: update the driver to 525 or newer."
    fi
    echo "* Going on WITHOUT the card, on the CPU."
    echo "**********************************************************************************************"
  } >&2
}

torch_build() {
  python -c 'import torch; print(torch.__version__, "with CUDA", torch.version.cuda)' 2>/dev/null || echo "(not installed)"
}

# The wheel build of torch 2.11 for the CUDA version a driver reports; nothing when there is none.
driver_build() {
  case "$1" in
    13.*) echo cu130 ;;
    12.8|12.9) echo cu128 ;;
    12.*) echo cu126 ;;  # any 12.x driver runs 12.6 builds (minor-version compatibility)
  esac
}

# All of the above for the checkout $1 and the requirement files that follow.
setup_environment() {
  local root=$1 file
  shift
  activate_environment "$root" || return 1
  for file in "$@"; do
    install_requirements "$root" "$file" || return 1
  done
  check_driver
}
