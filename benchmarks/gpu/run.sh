#!/usr/bin/env bash
# Tests and benchmarks on a GPU: run.sh [--tiny] [--out DIR] [--seconds S] [SECTION ...]
# Sections: tests exact quality haar step loader evaluate (default: all, in this order); docs/gpu.md describes them.
#   --tiny       tiny shapes on the CPU, a few seconds per section: finds mistakes without a GPU
#   --out DIR    folder for SECTION.json and run.log (default: $OUT, else build/gpu/results)
#   --seconds S  time budget of each section, instead of those below
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
all=(tests exact quality haar step loader evaluate)
declare -A budgets=([tests]=150 [exact]=130 [quality]=215 [haar]=60 [step]=160 [loader]=40 [evaluate]=60)  # 535 s in all
together=(tests exact quality)  # run at the same time: none of them measures a speed that is reported
python=${PYTHON:-python3} out=${OUT:-$root/build/gpu/results} budget='' tiny='' sections=()
needed=(braceexpand efficientnet_lite_pytorch imagecodecs ptwt pydantic pytorch_wavelets simplejpeg torch_fidelity)
find='import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))'

die() { echo "run.sh: $*" >&2; exit 2; }
usage() { sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"; exit 0; }

while [ $# -gt 0 ]; do
    case $1 in
        --tiny) tiny=--tiny ;;
        --out) [ $# -gt 1 ] || die "--out needs a folder"; out=$2 && shift ;;
        --seconds) [[ ${2:-} =~ ^[0-9]+([.][0-9]+)?$ ]] || die "--seconds needs a number"; budget=$2 && shift ;;
        --help | -h) usage ;;
        -* | '') die "no option is called '$1'; try --help" ;;
        *) [ -n "${budgets[$1]:-}" ] || die "no section is called $1; there are ${all[*]}"; sections+=("$1") ;;
    esac
    shift
done
[ ${#sections[@]} -gt 0 ] || sections=("${all[@]}")
mkdir -p "$out" 2>/dev/null || die "cannot write to $out"
out=$(cd "$out" && pwd)
cd "$root" || exit
scratch=$(mktemp -d)
export PYTHONPATH=$root:$root/benchmarks:$scratch/site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
[ -z "$tiny" ] || export CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=1

install_wheels() {
    if [ ! -d build/gpu/wheels ] || "$python" -c "$find" "${needed[@]}"; then return; fi
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --target "$scratch/site" \
        build/gpu/wheels/*.whl || die "the wheels cannot be installed; they are for Python 3.12"
}

check_torch() {
    "$python" -c 'import torch' 2>/dev/null || die "$python has no PyTorch; set PYTHON to one that has it"
    [ -n "$tiny" ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
        die "PyTorch sees no GPU; --tiny runs tiny shapes on the CPU"
}

# Run one section. Its stderr goes to the log, and the end of it to the terminal if the section fails.
run_section() {
    local limit=${budget:-${budgets[$1]}} began=$SECONDS stderr=$scratch/$1.stderr code result
    echo "== $1 (at most $limit s)"
    timeout --kill-after=5 "$limit" "$python" -m "gpu.$1" --out "$out" --seconds "$limit" $tiny 2>"$stderr" &
    echo $! >"$scratch/$1.group"  # timeout has moved the section to a process group of its own
    wait $!
    code=$?
    rm "$scratch/$1.group"
    case $code in 0) result=ok ;; 124 | 137) result='timed out' ;; *) result=failed ;; esac
    { echo "-- stderr of $1"; tail -c 200000 "$stderr"; } >>"$out/run.log"
    [ $code = 0 ] || tail -n 12 "$stderr" | cut -c 1-200
    printf '%-10s %-10s %4d s\n' "$1" "$result" $((SECONDS - began)) >>"$scratch/summary"
}

# Run those of the sections `together` that were chosen; print what one says when it has ended.
run_together() {
    local section processes=()
    for section in "$@"; do
        run_section "$section" >"$scratch/$section.stdout" &
        processes+=($!)
    done
    [ $# = 0 ] || wait "${processes[@]}"
    for section in "$@"; do cat "$scratch/$section.stdout"; done
}

# Kill the sections that run.
# shellcheck disable=SC2317
stop() {
    local file
    for file in "$scratch"/*.group; do [ ! -e "$file" ] || kill -- -"$(<"$file")" 2>/dev/null; done
    exit 130
}

main() {
    local section first=()
    check_torch
    install_wheels
    trap stop INT TERM
    for section in "${sections[@]}"; do [[ " ${together[*]} " != *" $section "* ]] || first+=("$section"); done
    run_together "${first[@]}"
    for section in "${sections[@]}"; do [[ " ${together[*]} " == *" $section "* ]] || run_section "$section"; done
    printf '== summary\n'
    cat "$scratch/summary"
    ! grep -qv ' ok ' "$scratch/summary"
    exit
}

# All output also goes to the log. tee ends when this shell has closed its output.
true >"$out/run.log"
exec 3>&1 > >(tee -a "$out/run.log") 2>&1
tee=$!
trap 'rm -rf "$scratch"; exec >&3 2>&3; wait $tee' EXIT
main
