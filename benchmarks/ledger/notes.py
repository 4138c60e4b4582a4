"""What came out of the rows, in words, and for those that failed a guess why; markdown, by the row's name."""

NOTES = {
    "relu-tanh": (
        "Tanh is as fast, and faster to 15 %. A guess why: it starts from LeCun's initialisation, ReLU from He's, "
        "both not the paper's one small Gaussian; and garments need fewer steps than CIFAR-10, in which units "
        "that saturate hardly matter yet. ReLU's rate is the lower: at 0.02 it was unstable."
    ),
    "overlapping-pools": (
        "The other way round, in two seeds of three. A guess why: the paper's network overfits, and less so with "
        "overlapping pools; this one has 9.6 % training error still."
    ),
    "lrn": (
        "Worse in every seed. A guess why: it slows learning (11.7 % training error against 9.6), and there is "
        "little yet to keep from overfitting."
    ),
    "dropout": (
        "It halves the distance from training to test error (5.4 points against 11.2), which is what the paper "
        "speaks of; the test error is the same. A guess why: 1,250 steps are too few for half of the units."
    ),
    "augmentation": (
        "It takes the distance from training to test error from 11.2 to 2.2 points, but the test error up. A "
        "guess why: twenty passes over 4,000 images are too few to learn them moved and mirrored, too."
    ),
    "ten-crops": (
        "The right sign, and a twelfth of the paper's size; not clear with three seeds. A guess why: crops of 24 "
        "pixels out of 28 differ little."
    ),
    "auxiliary-heads": (
        "Ahead in every seed, by 1, 57 and 8 points, which is too uneven to be clear: in one the network without "
        "them has hardly begun to learn. 200 steps are few for 22 layers without batch norm; what the heads do "
        "here is to save a start that fails."
    ),
    "batch-norm": (
        "At 5 and 30 times the rate the network without it ends at chance in every seed, one of them with numbers "
        "that are not finite; that its ReLUs died was not looked at. With it 5 times the rate is the best of all; "
        "30 times learns, but ends 1.4 points behind the rate that needs no norm. A guess why: the paper's BN-x30 "
        "is slower at first than BN-x5, too, and has longer."
    ),
    "batch-norm-groups": (
        "Hardly a difference. A guess why: three norms, not 53, whose noise does not add up; and two images of "
        "28x28 pixels give the first of them 1,568 values a channel."
    ),
    "label-smoothing": (
        "Worse in every seed. A guess why: it keeps a network from being too sure of images that it has learned, "
        "and this one has 9.6 % training error still."
    ),
    "degradation": (
        "The plain networks' training error is the higher the deeper they are, 20 to 49 %; the residual ones', 13 "
        "to 15 %, is not, which is the degradation and its cure. But 300 steps do not show that 56 layers are "
        "better than 20."
    ),
    "pre-activation": (
        "Ahead in two seeds, and steady: 20 to 22 % training error, where ResNet-110 has 47, 31 and 21, too wide "
        "apart for three seeds to be clear. The paper of 2015 trains its 110 layers at a tenth of the rate first "
        "(sec. 4.2), which was left out here."
    ),
    "stochastic-depth": (
        "Behind in every seed. A guess why: it is for networks that have learned their images; the paper trains "
        "for 500 epochs, here it is 300 steps. Nor is a step shorter: each image of a batch skips others."
    ),
    "shortcuts": (
        "No clear difference, and from B to C rather the other way. A guess why: C's seven more projections have "
        "to be learned in 625 steps."
    ),
    "width-depth": "By a fifth of a point, in 0.73 of the time.",
    "cardinality": "No difference. A guess why: 4 groups of 6 channels are little to divide; the paper has 32 of 4.",
    "dense": (
        "The right sign, not clear; the DenseNet takes 2.3 times the multiply-adds and five times the time. A guess "
        "why: it has fitted less after 625 steps (8.8 % training error against 7.4)."
    ),
    "separable": (
        "Five times the paper's price, and one seed far below the others. A guess why: three layers without a "
        "norm, of which the first looks at one channel. The multiply-adds are a fifteenth."
    ),
    "squeeze-excitation": (
        "The right sign, not clear with three seeds. A guess why: a sixteenth of 16 to 64 channels leaves the gates "
        "one to four units."
    ),
    "lenet-order": (
        "By one point; the paper's network is 0.75 better, on 15 times the images. LeNet-4 is not here: what the "
        "paper says of its layers takes more parameters than the number that it gives."
    ),
    "published-two-convolutions": (
        "91.56 ± 0.16 %: the published figure to its tenth, but not met as the rule asks; one seed is above it. Of the "
        "minutes 22 are a pause of seed 2."
    ),
    "published-resnet20": (
        "2.2 points short of a network of forty times its parameters. A guess why: six passes, whose rate falls to "
        "nothing before the training error (5 to 7 % at the end) does."
    ),
    "lenet-eras": """The mistakes of seed 0, the surest first: ones with a foot, nines without a belly, barred sevens.
That of 1998 is sure of nearly all: its outputs are squared distances.

![mistakes of 1998](images/reproduction/lenet5_1998-mistakes.png)

![mistakes of today's](images/reproduction/lenet5_modern-mistakes.png)
""",
}
