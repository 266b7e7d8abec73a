"""The tree is that of RFC 6962: its published vectors, and any tree against the definition."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.audit.merkle import Tree, inclusion_path, leaf_hash, root_from_path

# The leaves, roots and paths of the reference implementation of Certificate Transparency (merkle_tree_test).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def grown(leaves: Sequence[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    return tree


def defined(leaves: Sequence[bytes]) -> bytes:
    """Section 2.1 of the RFC, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + defined(leaves[:split]) + defined(leaves[split:])).digest()


@pytest.mark.parametrize(("size", "root"), list(enumerate(ROOTS)))
def test_the_roots_of_the_vectors(size: int, root: str) -> None:
    assert grown(LEAVES[:size]).root().hex() == root


@pytest.mark.parametrize(("index", "size", "path"), PATHS)
@pytest.mark.parametrize("before", [0, 1])
def test_the_paths_of_the_vectors(index: int, size: int, path: list[str], before: int) -> None:
    before = min(before, index)
    hashes = [leaf_hash(leaf) for leaf in LEAVES[:size]]
    made = inclusion_path(index, grown(LEAVES[:before]), hashes[before:])
    assert [node.hex() for node in made] == path
    assert root_from_path(hashes[index], index, size, made).hex() == ROOTS[size]


@given(st.lists(st.binary(max_size=4), max_size=70), st.data())
def test_a_tree_that_grew_has_the_root_of_the_definition(leaves: list[bytes], data: st.DataObject) -> None:
    before = data.draw(st.integers(0, len(leaves)))
    half = grown(leaves[:before])
    resumed = Tree(half.size, half.frontier)
    for leaf in leaves[before:]:
        resumed.append(leaf_hash(leaf))
    assert grown(leaves).root() == resumed.root() == defined(leaves)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70, unique=True), st.data())
def test_a_path_proves_its_leaf_and_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    before = data.draw(st.integers(0, index))
    hashes = [leaf_hash(leaf) for leaf in leaves]
    path = inclusion_path(index, grown(leaves[:before]), hashes[before:])
    root = defined(leaves)
    assert root_from_path(hashes[index], index, len(leaves), path) == root
    assert root_from_path(leaf_hash(b"another"), index, len(leaves), path) != root
    if path:
        place = data.draw(st.integers(0, len(path) - 1))
        forged = [*path[:place], bytes(32), *path[place + 1 :]]
        assert root_from_path(hashes[index], index, len(leaves), forged) != root
        with pytest.raises(ValueError, match="short"):
            root_from_path(hashes[index], index, len(leaves), path[:-1])
    with pytest.raises(ValueError, match="long"):
        root_from_path(hashes[index], index, len(leaves), [*path, bytes(32)])


def test_what_is_no_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="complete subtrees"):
        Tree(3, [bytes(32)])
    with pytest.raises(ValueError, match="outside"):
        root_from_path(bytes(32), 3, 3, [])
    with pytest.raises(ValueError, match="is not one of"):
        inclusion_path(0, grown([b"a"]), [bytes(32)])
