#!/bin/sh
# The commands behind docs/evidence.md. What is done is not trained again, so it can be interrupted at any time.
# Without arguments everything; with names only these parts: sh evidence/commands.sh digits sweeps
set -eu
cd "$(dirname "$0")"

digits() {
    wash-fl compare -o digits
    wash-fl compare -o digits --methods wash --vary schedule=paper
}

sweeps() { # on the digits: steps between two exchanges, dropout, dtype, depth at equal bytes
    wash-fl compare -o sweeps/every --methods wash --mix shuffle --exchange-plane stream --p-per step --p 0.005 \
        --vary every=1,6,24,96
    wash-fl compare -o sweeps/dropout --methods wash,fedavg --mix shuffle --dropout 0,0.2,0.5
    wash-fl compare -o sweeps/dtype --methods wash --mix shuffle --vary dtype=float32,bfloat16,float16,int8
    wash-fl compare -o sweeps/depth --methods wash --mix shuffle --vary schedule=decreasing --vary p=0.1
    wash-fl compare -o sweeps/depth --methods wash --mix shuffle --vary schedule=constant --vary p=0.0453
    wash-fl compare -o sweeps/depth --methods wash --mix shuffle --vary schedule=increasing --vary p=0.0828
}

fashion_methods() { # a folder, then the options of the division
    folder=$1
    shift
    # By now 4 x 512 examples re-estimate BatchNorm: more only cost time.
    set -- --task fashion-mnist --train-examples 10000 --calibration-examples 512 "$@"
    wash-fl compare -o "$folder" "$@"
    wash-fl compare -o "$folder" "$@" --methods wash --vary schedule=paper
}

fashion_in() { # a folder, then options; WASH and SPARTA with a twentieth of the bytes of FedAvg, or a third
    folders=$1
    shift
    # Where all members have all the data, an ensemble takes longer to be worth more than one model.
    fashion_methods "$folders/shared" --division shared --rounds 180 --p 0.05 "$@"
    fashion_methods "$folders/dirichlet-0.5" --division dirichlet --alpha 0.5 --rounds 60 --p 0.33 "$@"
    fashion_methods "$folders/dirichlet-0.1" --division dirichlet --alpha 0.1 --rounds 60 --p 0.33 "$@"
    fashion_methods "$folders/iid" --division iid --rounds 60 --p 0.05 "$@"
}

fashion() { # fashion-mnist-xeon is this on another kind of CPU
    fashion_in fashion-mnist --memory-format channels-last
}

more() { # more seeds of what is nearest to each other, and other ways to spend a twentieth of the bytes
    set -- --task fashion-mnist --train-examples 10000 --calibration-examples 512 --memory-format channels-last
    wash-fl compare -o fashion-mnist/shared-more "$@" --division shared --rounds 180 --p 0.05 --seeds 3,4,5 \
        --methods isolated,fedavg,wash
    wash-fl compare -o fashion-mnist/dirichlet-0.5-more "$@" --division dirichlet --alpha 0.5 --rounds 60 --p 0.33 \
        --seeds 3,4,5 --methods fedavg,wash
    wash-fl compare -o fashion-mnist/dirichlet-0.1-more "$@" --division dirichlet --alpha 0.1 --rounds 60 --p 0.33 \
        --seeds 3,4,5 --methods fedavg,wash
    for change in schedule=constant p=0.66; do
        wash-fl compare -o fashion-mnist/dirichlet-0.1-more "$@" --division dirichlet --alpha 0.1 --rounds 60 --p 0.33 \
            --seeds 3,4,5 --methods wash --vary $change
    done
    set -- "$@" --division shared --methods wash
    wash-fl compare -o search/shared-seldom "$@" --rounds 45 --local-steps 96 --p 0.2 --seeds 0,1,2,3,4,5
    wash-fl compare -o search/shared-cosine "$@" --rounds 180 --p 0.1 --timing cosine --seeds 3,4,5
    wash-fl compare -o search/shared-often "$@" --rounds 180 --exchange-plane stream --every 6 --p 0.0125 --seeds 3,4,5
}

contiguous() { # the same, rounded otherwise
    fashion_in fashion-mnist-contiguous
}

search_at() { # folder, options of the division, then what is varied
    folder=search/$1
    shift
    wash-fl compare -o "$folder" --task fashion-mnist --train-examples 10000 --rounds 60 --seeds 10 "$@"
}

search() { # which schedule and mix: with another seed than the comparison
    for division in "shared --division shared" "iid --division iid"; do
        # A twentieth of the bytes of FedAvg up and down, as int8 and as float32.
        search_at $division --methods wash --vary dtype=int8 --vary schedule=size-aware,constant --vary mix=shuffle --vary p=0.2
        search_at $division --methods wash --vary dtype=int8 --vary schedule=decreasing --vary mix=shuffle --vary p=0.44
        search_at $division --methods wash --vary dtype=float32 --vary schedule=size-aware,constant --vary mix=average --vary p=0.05
        search_at $division --methods fedavg,isolated
    done
    search_at shared --division shared --methods wash --vary dtype=float32 --vary schedule=size-aware,constant --vary mix=shuffle --vary p=0.05
    search_at shared --division shared --methods wash --vary dtype=int8 --vary schedule=size-aware --vary mix=average --vary p=0.2
    search_at shared --division shared --methods wash --vary dtype=float32 --vary schedule=size-aware --vary mix=average --vary p=0.1 --vary timing=cosine
    # More seeds of what was nearest to each other.
    more="--task fashion-mnist --train-examples 10000 --rounds 60 --calibration-examples 512 --methods wash --schedule size-aware"
    wash-fl compare -o search/shared-shuffled $more --seeds 11,12 --mix shuffle --dtype int8 --p 0.2 --division shared
    wash-fl compare -o search/shared-averaged $more --seeds 11,12 --mix average --p 0.05 --division shared
    wash-fl compare -o search/iid-shuffled-int8 $more --seeds 10,11,12 --mix shuffle --dtype int8 --p 0.2 --division iid
    wash-fl compare -o search/iid-averaged $more --seeds 10,11,12 --mix average --p 0.05 --division iid
    wash-fl compare -o search/iid-shuffled $more --seeds 10,11,12 --mix shuffle --p 0.05 --division iid
    # Three times as long.
    long="--task fashion-mnist --train-examples 10000 --rounds 180 --calibration-examples 512 --seeds 10"
    wash-fl compare -o search/shared-long $long --methods fedavg,isolated
    wash-fl compare -o search/shared-long $long --methods wash --vary schedule=size-aware --vary mix=average --vary p=0.05
    for division in "dirichlet-0.5 --division dirichlet --alpha 0.5" "dirichlet-0.1 --division dirichlet --alpha 0.1"; do
        # A third.
        search_at $division --methods wash --vary dtype=float32 --vary schedule=size-aware,constant --vary mix=average,shuffle --vary p=0.33
        search_at $division --methods fedavg,isolated
    done
}

rare() { # the same steps and bytes in fewer and larger exchanges; 60 rounds are search/...-averaged
    for division in iid shared; do
        for rounds in "15 --local-steps 96 --p 0.2" "5 --local-steps 288 --p 0.6"; do
            # shellcheck disable=SC2086 # several words
            wash-fl compare -o "search/rare-$division-${rounds%% *}" --task fashion-mnist --train-examples 10000 \
                --calibration-examples 512 --methods wash --division $division --rounds $rounds --seeds 10,11,12
        done
    done
}

recipes_in() { # a folder, then options of the task: what has the bytes of FedAvg, a fifth, a twentieth, a fiftieth
    folder=recipes/$1
    shift
    recipes=recipe-frugal,recipe-pairs,recipe-wash
    wash-fl compare -o "$folder/1" "$@" --methods fedavg,fedavg-outer-step
    wash-fl compare -o "$folder/20" "$@" --budget 0.05 --methods $recipes,fedavg,fedavg-outer-step,top-k
    wash-fl compare -o "$folder/5" "$@" --budget 0.2 --methods $recipes,fedavg,fedavg-outer-step
    wash-fl compare -o "$folder/50" "$@" --budget 0.02 --methods recipe-frugal,recipe-pairs,fedavg,fedavg-outer-step,top-k
    # Three of the six seeds for the others.
    wash-fl compare -o "$folder/20-others" "$@" --seeds 0,1,2 --budget 0.05 --methods sparta,single-merge,papa-all,late,early
}

recipes_digits() {
    recipes_in digits --seeds 0,1,2,3,4,5
}

recipes_fashion() { # the same number of steps in all four settings
    set -- --task fashion-mnist --train-examples 10000 --calibration-examples 512 --memory-format channels-last \
        --rounds 60 --seeds 0,1,2,3,4,5
    recipes_in shared "$@" --division shared
    recipes_in iid "$@" --division iid
    recipes_in dirichlet-0.5 "$@" --division dirichlet --alpha 0.5
    recipes_in dirichlet-0.1 "$@" --division dirichlet --alpha 0.1
}

recipes_people() { # two others left out each time
    for two in 1_2 3_4 5_6 7_8 9_10; do
        recipes_in "people/without-$two" --task "people/without_$two.py" --members 8 --seeds 0
    done
}

people() { # two others left out each time
    for two in 1_2 3_4 5_6 7_8 9_10; do
        wash-fl compare -o "smartwatch/without-$two" --task "people/without_$two.py" --members 8 \
            --methods isolated,fedavg,wash
        wash-fl compare -o "smartwatch/without-$two" --task "people/without_$two.py" --members 8 \
            --methods wash --vary p=0.3
    done
}

for part in ${*:-digits sweeps search rare fashion more contiguous people recipes_digits recipes_fashion recipes_people}; do
    "$part"
done
