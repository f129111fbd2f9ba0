#!/bin/bash -eu
# What ClusterFuzzLite runs in the image of the Dockerfile: into $OUT goes, for each fuzz target, one
# executable, with its corpus, its words and its options beside it.

pip3 install '.[cli]'

for target in $(python3 -m fuzz --list | cut -d ' ' -f 1); do
    # PyInstaller finds what a script imports, and options tell it of what is imported by name.
    cat >"$target.py" <<END
import sys
from fuzz.__main__ import run_atheris
run_atheris("$target", sys.argv[1:])
END
    pyinstaller --distpath "$OUT" --workpath "$WORK" --specpath "$WORK" --paths "$PWD" --onefile \
        --name "$target.pkg" \
        --hidden-import atheris \
        --hidden-import "fuzz.$target" \
        --collect-submodules gearman_proto \
        --add-data "$PWD/tests/vectors:tests/vectors" \
        --add-data "$PWD/tests/vectors-2.0:tests/vectors-2.0" \
        "$target.py"
    # What is executable is a target; the comment is what they are known by. There is no native code,
    # so nothing is preloaded.
    chmod -x "$OUT/$target.pkg"
    cat >"$OUT/$target" <<'END'
#!/bin/sh
# LLVMFuzzerTestOneInput for fuzzer detection.
here=$(dirname "$0")
target=$(basename "$0")
chmod +x "$here/$target.pkg"
ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 exec "$here/$target.pkg" "$@"
END
    chmod +x "$OUT/$target"
    zip -q -j "$OUT/${target}_seed_corpus.zip" "fuzz/corpus/$target"/*
    cp fuzz/gearman.dict "$OUT/$target.dict"
    printf '[libfuzzer]\nmax_len = 400\nlen_control = 0\n' >"$OUT/$target.options"
done
