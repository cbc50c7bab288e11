#!/usr/bin/env bash
# How small each network gets within its bound: one command a row of docs/how-small.md.
#
#   benches/how_small.sh FOLDER ROW [further flags of weightpress search]
#
# FOLDER holds `models/` and `datasets/` as docs/how-small.md describes them. Selected on validation, reported on test:
# of MNIST and CIFAR-10 the first 5,000 test items are the validation split and the last 5,000 the test split.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 row=$2
shift 2
weightpress=${WEIGHTPRESS_BIN:-target/release/weightpress}
out=${OUT:-target/how_small}
mkdir -p "$out"

# Arrays x_train, y_train, x_test, y_test of bytes.
mnist() {
    local train='{"array": "x_train", "scale": 0.00392156862745098}' test='{"array": "x_test", "scale": 0.00392156862745098}'
    local target='{"array": "y_test", "kind": "class"}'
    echo "{\"train\": {\"inputs\": {\"input\": $train}, \"target\": {\"array\": \"y_train\", \"kind\": \"class\"}},
           \"validation\": {\"inputs\": {\"input\": $test}, \"target\": $target, \"range\": [0, 5000]},
           \"test\": {\"inputs\": {\"input\": $test}, \"target\": $target, \"range\": [5000, 10000]}}"
}

# Arrays x and y in a file for training and one for tests.
cifar10() {
    local map='"inputs": {"input": {"array": "x", "scale": 0.00392156862745098}}, "target": {"array": "y", "kind": "class"}'
    echo "{\"train\": {$map}, \"validation\": {$map, \"range\": [0, 5000]}, \"test\": {$map, \"range\": [5000, 10000]}}"
}

run() {
    local command=$1 model=$2
    shift 2
    set -x
    exec "$weightpress" "$command" "$folder/models/$model" -o "$out/$row.wp" --report "$out/$row.json" "$@"
}

mnist_data=(--data "$folder/datasets/mnist.npz" --data-map "$(mnist)" --metrics accuracy)
cifar10_data=(--data "$folder/datasets/cifar10_train10k.npz" --validation "$folder/datasets/cifar10_test.npz"
    --test "$folder/datasets/cifar10_test.npz" --data-map "$(cifar10)" --metrics accuracy)
davis_data=(--data "$folder/datasets/deepdta_davis_train.npz" --validation "$folder/datasets/deepdta_davis_val.npz"
    --test "$folder/datasets/deepdta_davis_test.npz" --metrics mse)

case $row in
    lenet300-one-shot) run compress lenet300_mnist.onnx "${mnist_data[@]}" --recipe benches/how_small/one_shot.json "$@" ;;
    lenet5-one-shot) run compress lenet5_mnist.onnx "${mnist_data[@]}" --recipe benches/how_small/one_shot.json "$@" ;;
    lenet300) run search lenet300_mnist.onnx "${mnist_data[@]}" --max-drop 0.001 --recipe benches/how_small/lenet300.json "$@" ;;
    lenet5)
        run search lenet5_mnist.onnx "${mnist_data[@]}" --max-drop 0.001 --seconds 2100 \
            --recipe benches/how_small/lenet5.json "$@"
        ;;
    vggmini)
        run search vggmini_cifar10.onnx "${cifar10_data[@]}" --max-drop 0.005 --trials 9 \
            --recipe benches/how_small/vggmini.json "$@"
        ;;
    deepdta)
        run search deepdta_davis.onnx "${davis_data[@]}" --max-relative-drop 0.02 --trials 9 \
            --recipe benches/how_small/deepdta.json "$@"
        ;;
    deepdta-30-times)
        run compress deepdta_davis.onnx "${davis_data[@]}" --recipe benches/how_small/deepdta_30.json "$@"
        ;;
    deepdta-dense)
        run search deepdta_davis.onnx "${davis_data[@]}" --max-relative-drop 0.02 --trials 9 \
            --recipe benches/how_small/deepdta_dense.json "$@"
        ;;
    deepdta-dense-smallest)
        run search deepdta_davis.onnx "${davis_data[@]}" --max-metric 0.3187 --trials 12 \
            --recipe benches/how_small/deepdta_dense.json "$@"
        ;;
    *)
        echo "no row is named $row" >&2
        exit 2
        ;;
esac
