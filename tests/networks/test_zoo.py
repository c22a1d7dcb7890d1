"""Models that others wrote, with random weights: their sites, and edits of these against each library's own means.

Flax and Haiku intercept the calls of submodules themselves, and of Equinox's modules a submodule is replaced. The
libraries are those of the extra ``zoo``; tests of one that is absent are skipped.
"""

from __future__ import annotations

import importlib
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdist
from tests.networks.site_support import assert_edits, listed

pytestmark = pytest.mark.slow

IMAGES = jax.random.normal(jax.random.key(0), (5, 16, 16, 3))
VECTORS = jax.random.normal(jax.random.key(1), (5, 7))
TOKENS = jax.random.randint(jax.random.key(2), (5, 6), 0, 11)


@pytest.fixture(autouse=True)
def promotion():
    """These models promote ranks and types implicitly, which other tests forbid."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def library(name):
    """A library of the extra ``zoo``, whatever it warns of while it is imported; the test skips without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            return pytest.skip(f"{name} is not installed ({error})")


def uneven(value):
    """Another value of a site: layer norm would undo one that is the same for all units."""
    return 1.5 * value.at[..., 0].add(1.0)


def replaced(output, place, edit):
    """A submodule's output with one of its arrays edited: at a position, by an attribute's name, or the whole of it."""
    if place is None:
        return edit(output)
    if isinstance(place, str):
        return output.replace(**{place: edit(getattr(output, place))})
    return (*output[:place], edit(output[place]), *output[place + 1 :])


# Flax.


def linen_by_hand(module, path, place=None, edit=uneven, **call):
    """The module with an interceptor of Flax, which edits what the submodule at `path` returns."""

    def intercepted(method, args, kwargs, context):
        output = method(*args, **kwargs)
        if context.method_name == "__call__" and "/".join(context.module.path) == path:
            output = replaced(output, place, edit)
        return output

    def apply(variables, x):
        with nn.intercept_methods(intercepted):
            output = module.apply(variables, x, **call)
        return getattr(output, "logits", output)

    return apply


def logits(output):
    return output.logits


class Only:
    """A function that returns the logits alone of what another one returns."""

    def __init__(self, apply):
        self.apply = apply

    def __call__(self, params, x):
        return self.apply(params, x).logits


@pytest.fixture(scope="module")
def vision_transformer():
    transformers = library("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    model = transformers.FlaxViTForImageClassification(config, input_shape=(1, 16, 16, 3), seed=0)
    # Its own initial weights are so small that it gives nearly the same for all images.
    return model, {"params": jax.tree.map(lambda leaf: 5 * leaf, model.params)}


def test_vision_transformer_of_transformers(vision_transformer):
    model, variables = vision_transformer
    apply, params = jaxdist.from_linen(model.module, variables)
    names = listed(apply, params, IMAGES)
    assert len(names) == len(set(names))
    layer = "vit/encoder/layer/1"
    assert [name for name in names if name.startswith(layer)][:7] == [
        f"{layer}/layernorm_before",
        f"{layer}/attention/attention/query",
        f"{layer}/attention/attention/value",
        f"{layer}/attention/attention/key",
        f"{layer}/attention/attention[0]",
        f"{layer}/attention/output/dense",
        f"{layer}/attention/output/dropout",
    ]
    assert names[0] == "vit/embeddings/patch_embeddings/projection"
    assert names[-2:] == ["vit.last_hidden_state", "classifier"]
    np.testing.assert_array_equal(
        jax.jit(apply)(params, IMAGES).logits,
        jax.jit(lambda params, x: model(jnp.moveaxis(x, -1, 1), params=params["params"]).logits)(params, IMAGES),
    )
    for name, path, place in (
        ("vit/embeddings/patch_embeddings", "vit/embeddings/patch_embeddings", None),
        ("vit/encoder/layer/0/attention/attention/key", "vit/encoder/layer/0/attention/attention/key", None),
        (f"{layer}/attention/attention[0]", f"{layer}/attention/attention", 0),
        (f"{layer}[0]", layer, 0),
        ("vit.last_hidden_state", "vit", "last_hidden_state"),
    ):
        assert_edits(Only(apply), params, IMAGES, {name: uneven}, linen_by_hand(model.module, path, place))


def test_probe_of_a_vision_transformer_counts_as_flax_does(vision_transformer):
    model, variables = vision_transformer
    apply, params = jaxdist.from_linen(model.module, variables)
    x = np.asarray(jax.random.normal(jax.random.key(3), (60, 16, 16, 3)))
    plain = np.asarray(apply(params, x).logits).argmax(-1)
    labels = np.where(np.arange(60) % 3 == 0, np.arange(60) % 2, plain)
    paths = [f"vit/encoder/layer/{k}/intermediate" for k in (0, 1)]
    result = jaxdist.probe(
        apply,
        params,
        train=(x, labels),
        sites=["vit/encoder/layer/*/intermediate"],
        families=("scale", "zero"),
        fractions={"scale": (0.25, 1.0, 16.0), "zero": (0.0, 0.5, 1.0)},
        output=logits,
    )
    assert len(np.unique(plain)) > 1
    for family, factor in (("scale", lambda p: p), ("zero", lambda p: 1 - p)):
        group = result[family].sel(network="network", seed=0, split="train")
        assert list(group.site.to_numpy()) == [*paths, "all"]
        seen = set()
        for site in (*paths, "all"):
            for p in group.fraction.to_numpy():

                def edit(value, p=p, factor=factor):
                    return value * np.float32(factor(p))

                def intercepted(method, args, kwargs, context, site=site, edit=edit):
                    output = method(*args, **kwargs)
                    path = "/".join(context.module.path)
                    whole = context.method_name == "__call__" and path in paths
                    return edit(output) if whole and site in (path, "all") else output

                with nn.intercept_methods(intercepted):
                    predicted = np.asarray(model.module.apply(variables, x).logits).argmax(-1)
                counts = group.sel(site=site, fraction=p)
                assert int(counts.correct) == (predicted == labels).sum()
                assert int(counts.agree) == (predicted == plain).sum()
                assert int(counts.kept) == ((predicted == labels) & (plain == labels)).sum()
                seen.add(int(counts.agree))
        assert len(seen) > 2


class LastLogits(nn.Module):
    """A decoder's logits of the last position, with its attention mask and positions given."""

    gpt: nn.Module

    def __call__(self, ids):
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        return self.gpt(ids, jnp.ones_like(ids), positions).logits[:, -1]


def test_decoder_of_transformers():
    transformers = library("transformers")
    config = transformers.GPT2Config(vocab_size=11, n_positions=6, n_embd=8, n_layer=2, n_head=2)
    model = transformers.FlaxGPT2LMHeadModel(config, input_shape=(1, 6), seed=0)
    module = LastLogits(model.module)
    apply, params = jaxdist.from_linen(module, {"params": {"gpt": jax.tree.map(lambda w: 8 * w, model.params)}})
    names = listed(apply, params, TOKENS)
    assert names[:5] == [
        "gpt/transformer/wte",
        "gpt/transformer/dropout",
        "gpt/transformer/h/0/ln_1",
        "gpt/transformer/h/0/attn/c_attn",
        "gpt/transformer/h/0/attn/c_proj",
    ]
    assert names[-2:] == ["gpt/transformer.last_hidden_state", "gpt.logits"]
    np.testing.assert_array_equal(
        jax.jit(apply)(params, TOKENS),
        jax.jit(lambda params, ids: model(ids, params=params["params"]["gpt"]).logits[:, -1])(params, TOKENS),
    )
    for name, path, place in (
        ("gpt/transformer/wte", "gpt/transformer/wte", None),
        ("gpt/transformer/h/0/attn[0]", "gpt/transformer/h/0/attn", 0),
        ("gpt/transformer/h/1/mlp/c_fc", "gpt/transformer/h/1/mlp/c_fc", None),
        ("gpt/transformer/h/1[0]", "gpt/transformer/h/1", 0),
        ("gpt.logits", "gpt", "logits"),
    ):
        assert_edits(apply, params, TOKENS, {name: uneven}, linen_by_hand(module, path, place))


def test_resnet_of_flaxmodels():
    module = library("flaxmodels").ResNet18(output="logits", pretrained=None, num_classes=3)
    variables = jax.jit(lambda x: module.init(jax.random.key(0), x, train=False))(IMAGES)
    apply, params = jaxdist.from_linen(module, variables, train=False)
    names = listed(apply, params, IMAGES)
    assert len(names) == 49
    assert names[2:7] == [f"BasicBlock_0/{part}_{k}" for k in (0, 1) for part in ("Conv", "BatchNorm")] + [
        "BasicBlock_0"
    ]
    for path in ("Conv_0", "BasicBlock_3/BatchNorm_1", "BasicBlock_6"):
        assert_edits(apply, params, IMAGES, {path: uneven}, linen_by_hand(module, path, train=False))


# Haiku.


def haiku_by_hand(haiku, transformed, name, **call):
    """The function with an interceptor of Haiku, which edits what the module of this name returns."""

    def intercepted(method, args, kwargs, context):
        output = method(*args, **kwargs)
        meant = context.method_name == "__call__" and context.module.module_name == name
        return uneven(output) if meant else output

    def apply(params, x):
        with haiku.intercept_methods(intercepted):
            if isinstance(transformed, haiku.TransformedWithState):
                return transformed.apply(*params, None, x, **call)[0]
            return transformed.apply(params, None, x, **call)

    return apply


def test_perceptron_of_haiku():
    haiku = library("haiku")
    transformed = haiku.transform(lambda x: haiku.nets.MLP([8, 6, 3])(x))
    apply, params = jaxdist.from_haiku(transformed, transformed.init(jax.random.key(0), VECTORS))
    assert listed(apply, params, VECTORS) == [*(f"mlp/~/linear_{k}" for k in range(3)), "mlp"]
    for name in listed(apply, params, VECTORS):
        assert_edits(apply, params, VECTORS, {name: uneven}, haiku_by_hand(haiku, transformed, name))

    def plain(params, x):
        weights = [params[f"mlp/~/linear_{k}"] for k in range(3)]
        hidden = uneven(x @ weights[0]["w"] + weights[0]["b"])
        for layer in weights[1:]:
            hidden = jax.nn.relu(hidden) @ layer["w"] + layer["b"]
        return hidden

    assert_edits(apply, params, VECTORS, {"mlp/~/linear_0": uneven}, plain)


def test_resnet_of_haiku():
    haiku = library("haiku")
    transformed = haiku.transform_with_state(
        lambda x, is_training: haiku.nets.ResNet(
            (1, 1, 1, 1), 3, bottleneck=False, channels_per_group=(4, 4, 6, 8), use_projection=(True,) * 4
        )(x, is_training)
    )
    variables = jax.jit(lambda x: transformed.init(jax.random.key(0), x, is_training=True))(IMAGES)
    # The classes' weights are 0 at first.
    variables[0]["res_net/~/logits"]["w"] = jax.random.normal(jax.random.key(1), (8, 3))
    apply, params = jaxdist.from_haiku(transformed, *variables, is_training=False)
    names = listed(apply, params, IMAGES)
    assert len(names) == 36
    assert (names[0], names[-1]) == ("res_net/~/initial_conv", "res_net")
    for name in ("res_net/~/initial_batchnorm", "res_net/~/block_group_1/~/block_0", "res_net/~/logits"):
        assert_edits(apply, params, IMAGES, {name: uneven}, haiku_by_hand(haiku, transformed, name, is_training=False))


# Equinox.


def equinox_by_hand(equinox, model, where, **call):
    """The module with one submodule replaced by one that edits its output."""

    class Edited(equinox.Module):
        inner: equinox.Module

        def __call__(self, *args, **kwargs):
            return uneven(self.inner(*args, **kwargs))

    arrays, static = equinox.partition(equinox.nn.inference_mode(model), equinox.is_array)

    def apply(params, x):
        whole = equinox.combine(jax.tree.unflatten(jax.tree.structure(arrays), jax.tree.leaves(params)), static)
        changed = equinox.tree_at(where, whole, replace_fn=Edited)
        return jax.vmap(lambda one: changed(one, **call))(x)

    return apply


def test_perceptron_of_equinox():
    equinox = library("equinox")
    model = equinox.nn.MLP(7, 3, 8, 2, key=jax.random.key(0))
    apply, params = jaxdist.from_equinox(model)
    assert listed(apply, params, VECTORS) == ["layers/0", "layers/1", "layers/2"]
    for k in range(3):
        by_hand = equinox_by_hand(equinox, model, lambda model, k=k: model.layers[k])
        assert_edits(apply, params, VECTORS, {f"layers/{k}": uneven}, by_hand)


def test_vision_transformer_of_equimo():
    equinox, equimo = library("equinox"), library("equimo.models.vit")
    key = jax.random.key(0)
    model = equimo.VisionTransformer(16, 3, 8, 8, 2, [2, 1], num_classes=3, reg_tokens=1, key=key)
    x = jnp.moveaxis(IMAGES, -1, 1)
    apply, params = jaxdist.from_equinox(model, key=key, inference=True)
    names = listed(apply, params, x)
    assert len(names) == len(set(names)) == 73
    assert (names[0], names[-1]) == ("patch_embed/proj", "head")
    for name, where in {
        "patch_embed/proj": lambda model: model.patch_embed.proj,
        "blocks/0/blocks/1/attn/qkv": lambda model: model.blocks[0].blocks[1].attn.qkv,
        "blocks/0/blocks/0/mlp/fc1": lambda model: model.blocks[0].blocks[0].mlp.fc1,
        "blocks/1": lambda model: model.blocks[1],
        "norm": lambda model: model.norm,
    }.items():
        assert_edits(apply, params, x, {name: uneven}, equinox_by_hand(equinox, model, where, key=key, inference=True))
