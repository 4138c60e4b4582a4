"""The decoders against their papers' equations in NumPy, the search against all sentences, the loss by hand."""

from functools import partial
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import UserError, create_model, transfer
from cnn_jax.captioning import END, PAD, START, Captioner, attention_penalty, beam_search, caption_loss, greedy
from cnn_jax.layers import taken, tap

WORDS = 8  # four that every vocabulary has, and four


class Backbone(nn.Module):
    """A map (B, 3, 3, 5) and its mean."""

    pool: bool = True

    @nn.compact
    def __call__(self, x, *, train):
        x = tap(self, "map", nn.tanh(nn.Conv(5, (2, 2), 2, padding="VALID", name="stem")(x)))
        return x.mean((1, 2)) if self.pool else x


IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)
TOKENS = np.array([[[4, 5, END, PAD], [6, 7, 4, END]], [[5, END, PAD, PAD], [PAD] * 4]], np.int32)


@pytest.fixture(scope="module", params=[True, False], ids=["attention", "no attention"])
def told(request):
    """A captioner whose values are drawn wide, so that sentences differ much in their likelihood."""
    model = Captioner(Backbone(), WORDS, width=6, embedding=4, attention=request.param)
    variables = quick_init(model, IMAGES, train=False)
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(3)
    variables = tree.unflatten([rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])
    return model, variables, np.asarray(quick_apply(model, variables, IMAGES, train=False, method="encode"))


def read(model, variables, tokens):
    """Logits, and the weights of attention."""

    def told(variables):
        with taken() as taps:
            return model.apply(variables, IMAGES, tokens, train=False), taps.get("attention")

    return quick_jit(told)(variables)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)


def lstm(parts, cell, hidden, x):
    """1411.4555, eq. 4-9, with tanh for the output too, as LSTMs have had it since."""
    i, f, g, o = (
        x @ parts[f"i{gate}"]["kernel"] + hidden @ parts[f"h{gate}"]["kernel"] + parts[f"h{gate}"]["bias"]
        for gate in "ifgo"
    )
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return cell, sigmoid(o) * np.tanh(cell)


def dense(parts, x):
    return x @ parts["kernel"] + parts.get("bias", 0)


def by_the_papers(params, features, sentence):
    """Logits (T, V) of one sentence for one image, and weights (T, L), by the equations."""
    p, logits, looked = jax.tree.map(np.asarray, params), [], []
    if features.ndim == 1:
        cell, hidden = lstm(p["cell"], np.zeros(6), np.zeros(6), dense(p["image"], features))  # 1411.4555, eq. 10
    else:
        positions = features.reshape(-1, features.shape[-1])
        cell, hidden = (np.tanh(dense(p[f"first_{part}"], positions.mean(0))) for part in ("cell", "hidden"))
    for last in (START, *sentence[:-1]):
        word = p["words"]["embedding"][last]
        if features.ndim == 1:
            cell, hidden = lstm(p["cell"], cell, hidden, word)
            logits.append(dense(p["out"], hidden))
        else:  # 1502.03044, eq. 4-7 and 13, and sec. 4.2.1's gate
            match = dense(p["match"], np.tanh(dense(p["position"], positions) + dense(p["asked"], hidden)))[:, 0]
            looked.append(softmax(match))
            context = sigmoid(dense(p["gate"], hidden)) * (looked[-1] @ positions)
            cell, hidden = lstm(p["cell"], cell, hidden, np.concatenate([word, context]))
            logits.append(dense(p["out"], word + dense(p["hidden_out"], hidden) + dense(p["context_out"], context)))
    return np.array(logits), np.array(looked)


def log_likelihoods(variables, features, sentence):
    return np.log(softmax(by_the_papers(variables["params"]["decoder"], features, sentence)[0]))


def test_logits_and_weights_are_those_of_the_papers_equations(told):
    model, variables, features = told
    logits, weights = read(model, variables, TOKENS)
    for image, sentence in np.ndindex(2, 2):
        expected, looked = by_the_papers(variables["params"]["decoder"], features[image], TOKENS[image, sentence])
        # Sums of some ten products of values about 1, four words one after the other, in float32.
        np.testing.assert_allclose(logits[image, sentence], expected, rtol=1e-4, atol=1e-4)
        if model.attention:
            np.testing.assert_allclose(weights[image, sentence], looked, rtol=1e-3, atol=1e-5)


def every_sentence(length):
    """All that can be said in `length` words: with their end, or cut off."""
    said = [word for word in range(WORDS) if word not in (PAD, START)]
    going = [word for word in said if word != END]
    for words in range(length):
        for row in product(going, repeat=words):
            yield (*row, END) + (PAD,) * (length - words - 1)
    yield from product(going, repeat=length)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_sentences(told, power):
    model, variables, features = told
    length = 3
    # Of 5 words that go on and the end, no more than 5 * 5 + 5 + 1 + 125 sentences stand side by side.
    search = quick_jit(partial(beam_search, model, length=length, beam=160, length_power=power))
    found = search(variables, IMAGES)
    for image in range(2):

        def score(sentence, seen=features[image]):
            likelihoods = log_likelihoods(variables, seen, sentence)
            words = [place for place, word in enumerate(sentence) if word != PAD]
            total = sum(likelihoods[place, sentence[place]] for place in words)
            return total / len(words) ** power, total

        best = max(every_sentence(length), key=lambda sentence: score(sentence)[0])
        assert tuple(found.tokens[image].tolist()) == best
        np.testing.assert_allclose(found.log_likelihood[image], score(best)[1], rtol=1e-4)  # float32, three words


@pytest.mark.parametrize("beam", [1, 3])
def test_a_narrow_beam_keeps_the_likeliest_sentences_so_far(told, beam):
    """The same search by lists of Python, word by word; greedy is the beam of one."""
    model, variables, features = told
    length = 5
    found = quick_jit(partial(beam_search, model, length=length, beam=beam))(variables, IMAGES)
    for image in range(2):
        kept = [(0.0, ())]
        for place in range(length):
            longer = []
            for total, row in kept:
                if END in row:
                    longer.append((total, (*row, PAD)))
                    continue
                likelihoods = log_likelihoods(variables, features[image], (*row, 0))[place]
                longer += [(total + likelihoods[word], (*row, word)) for word in range(2, WORDS)]
            kept = sorted(longer, reverse=True)[:beam]
        assert tuple(found.tokens[image].tolist()) == kept[0][1]
        np.testing.assert_allclose(found.log_likelihood[image], kept[0][0], rtol=1e-4)  # float32, five words
    if beam == 1:
        same = quick_jit(partial(greedy, model, length=length))(variables, IMAGES)
        np.testing.assert_array_equal(same.tokens, found.tokens)


def test_attention_of_a_sentence_is_what_its_words_looked_at(told):
    model, variables, features = told
    found = quick_jit(partial(beam_search, model, length=5))(variables, IMAGES)
    if not model.attention:
        assert found.attention is None
        return
    _, weights = read(model, variables, found.tokens[:, None])
    said = np.asarray(found.tokens != PAD)
    assert found.attention.shape == (2, 5, 3, 3)
    looked = np.asarray(weights)[:, 0].reshape(found.attention.shape) * said[..., None, None]
    np.testing.assert_allclose(found.attention, looked, rtol=1e-3, atol=1e-5)  # the same sums in another order


def test_loss_is_the_mean_over_the_words_of_an_image():
    logits = np.random.default_rng(1).normal(size=(2, 2, 4, WORDS)).astype(np.float32)
    chances = np.log(softmax(logits))
    first = [-chances[0, r, t, TOKENS[0, r, t]] for r, t in np.ndindex(2, 4) if TOKENS[0, r, t]]
    second = [-chances[1, 0, t, TOKENS[1, 0, t]] for t in range(2)]  # the other row is no sentence
    assert len(first) == 7
    np.testing.assert_allclose(
        caption_loss(logits, TOKENS.astype(np.uint8)), [np.mean(first), np.mean(second)], rtol=1e-5
    )


def test_penalty_is_none_where_each_position_is_looked_at_once():
    even = np.full((1, 1, 4, 4), 0.25, np.float32)  # four words, four positions
    one = np.zeros((1, 1, 4, 4), np.float32)
    one[..., 0] = 1
    tokens = np.array([[[4, 5, 6, END]]])
    np.testing.assert_allclose(attention_penalty(even, tokens), [0], atol=1e-6)
    # (1 - 4)^2 and three times (1 - 0)^2, by 4 words.
    np.testing.assert_allclose(attention_penalty(one, tokens), [3], rtol=1e-6)
    # Behind the end nothing counts: (1 - 2)^2 and three times 1, by 2 words.
    np.testing.assert_allclose(attention_penalty(one, np.array([[[4, END, PAD, PAD]]])), [2], rtol=1e-6)


def test_every_parameter_gets_a_gradient(told):
    model, variables, features = told

    def objective(params):
        with taken() as taps:
            logits = model.apply({"params": params}, IMAGES, TOKENS, train=True, rngs={"dropout": jax.random.key(0)})
        penalty = attention_penalty(taps["attention"], TOKENS).sum() if model.attention else 0
        return caption_loss(logits, TOKENS).sum() + penalty

    grads = quick_jit(jax.grad(objective))(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        if "match" in str(path) and "bias" in str(path):
            continue  # a softmax does not see what all positions share
        assert np.abs(grad).max() > 1e-6, path


@pytest.mark.parametrize("attention", [True, False])
def test_dropout_and_the_compute_type_reach_the_words(attention):
    model = Captioner(Backbone(), WORDS, width=6, embedding=4, attention=attention, dtype=jnp.bfloat16)
    variables = quick_init(model, IMAGES, train=False)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    trained = quick_jit(lambda key: model.apply(variables, IMAGES, TOKENS, train=True, rngs={"dropout": key}))
    draws = [trained(jax.random.key(number)) for number in range(2)]
    assert draws[0].dtype == jnp.float32 and not np.array_equal(*draws)


def test_layers_of_the_backbone_keep_their_names_and_the_decoder_is_the_last():
    model = Captioner(create_model("resnet20_cifar", num_classes=0), WORDS, width=6, embedding=4)
    names = transfer.layer_names(model, (32, 32, 3))
    assert names[0] == "stem" and names[-2:] == ("stage3_block3", "decoder")


def test_it_looks_at_the_map_that_is_named():
    backbone = create_model("resnet20_cifar", num_classes=0)

    def shape(name):
        model = Captioner(backbone, WORDS, look_at=name)
        encoded = partial(model.init_with_output, train=False, method="encode")
        return jax.eval_shape(encoded, jax.random.key(0), np.zeros((1, 32, 32, 3)))[0].shape

    shapes = [shape(name) for name in (None, "stage2")]
    assert shapes == [(1, 8, 8, 64), (1, 16, 16, 32)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Captioner(Backbone(), WORDS, look_at="mop"), "unknown map of Backbone 'mop'; did you mean map"),
        (
            lambda: Captioner(Backbone(pool=False), WORDS, attention=False),
            "Backbone gives a map where a vector is needed",
        ),
        (lambda: Captioner(Backbone(), 0), "vocabulary must be a whole number above 0, not 0"),
    ],
)
def test_a_captioner_that_cannot_be_is_told_in_one_line(make, words):
    with pytest.raises(UserError, match=words):
        jax.eval_shape(partial(make().init, train=False), jax.random.key(0), IMAGES)


def test_tokens_and_numbers_that_do_not_fit_are_told(told):
    model, variables, features = told
    with pytest.raises(UserError, match=r"tokens must be \(2, sentences, words\) for 2 images, not \(2, 4\)"):
        jax.eval_shape(partial(model.apply, train=False), variables, IMAGES, TOKENS[:, 0])
    with pytest.raises(UserError, match="beam must be at least 1, not 0"):
        jax.eval_shape(partial(beam_search, model, length=3, beam=0), variables, IMAGES)
