"""The documentation that users follow, block by block: what it is, and which row of the conformance table covers it.

The text itself is another project's and not kept here. A block is a paragraph, an item of a list, or an example between
blank lines; headings, of up to four words, are none.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

_ITEM = re.compile(r"\n(?=  (?:•|\d+\.) )")
_LONGEST_HEADING = 4


class Block(NamedTuple):
    """The hash of a block, its first words, and the numbers of the rows that cover it."""

    sha256: str
    words: str
    rows: tuple[int, ...]


def digest(block: str) -> str:
    """What a block is known by."""
    return hashlib.sha256(block.encode()).hexdigest()


def blocks(text: str) -> list[str]:
    """The blocks of a text, in order."""
    parts = [item for part in re.split(r"\n\s*\n", text.strip("\n")) for item in _ITEM.split(part)]
    return [part for part in parts if not _is_heading(part)]


def _is_heading(part: str) -> bool:
    return "\n" not in part and len(part.split()) <= _LONGEST_HEADING and part[-1] not in ".:"


BLOCKS = (
    Block("dc29fab26e1fea6e1717e884559179b9516e5367f29cf24f831ded162ac3258b", "This policy enables", (1,)),
    Block("6082327a6e392be34faa3c7f5f1b29f2f7157021ba655bc5f39230321ef5f1f0", "Kuma ships with the", (2,)),
    Block("3055b38f20e0875d59d4fe697068043bdaf07508f5a3f1e0dda345ce6b782dbd", "• builtin: it automatically", (3,)),
    Block("540444c2d1d4891d65fff22995a49639301c7f62fbf0c4209118af2f2bfa4177", "• provided: the CA root", (4,)),
    Block("cf6e80404e87b51a182012bc9b781fda562c7bfabdd16cf0f509d9879c460188", "Once a CA backend has", (5,)),
    Block("b728d0f916de4479215806f667a48c4dc7a4886a50dd47eb6203ec883467a853", "The certificates that Kuma", (6,)),
    Block("bcdad0de99e2e3beefd82ad4a3f2d47bb035044a6815c29740670c06d799bafb", "Remember that by default", (7,)),
    Block("75eaf2c4f4e7f5f50f75469acd7d889bd10f7d2dbcce70b089b04a13ab851ae2", "Always make sure that a", (8,)),
    Block("13b340c20fe12e6c315b3acff05279577c0cd5e702e7bd235eecdc8b89c01727", "To enable mTLS we need", (9,)),
    Block("c0de6707c18af1dfc4807a1514dc79274b1c8cc3f092b39d527a3f0a8443b6e8", "If enabledBackend is missing", (10,)),
    Block("5feb1b9b8ae2dd5d25c99371fe75cc4340329e1928e43f65ed7a44029c28a690", "This is the fastest and", (11,)),
    Block("ca6e7dd0be7702f9ca82c3844888c54f537647aacf8a650fda2a312d569679f9", "With a builtin CA backend", (12,)),
    Block("1e8a0357f612fc62d9f4cc24eb144ef473c5e3f158196fe91defdd8b70a31930", "We can specify more than", (13,)),
    Block("8ed1f22b55a2924c504e65d4bd53819826f578ec8fa3e3e2a9c0d2edb37be028", "To enable a builtin mTLS", (14,)),
    Block("6812c6ee304bb8591aa1a773a3cf2bc98dd669e8253ddc80a4dee5ec25500f7b", "apiVersion: kuma.io/v1alpha1", (14,)),
    Block("4ab6df65fb597602ed6a9ceabaa96dabb72cc4e113bae4b64cab3ac25cb75917", "We will apply the", (15,)),
    Block("711a679e4bfa46bc6bf2b5753d68b73d8267f2c4ca3e0ee8a25e79f37e909b79", "A few considerations:", (16,)),
    Block("5f4c214aa6ea7b00d4cff748d338310b935ca473b147981f567dee482c250627", "• The dpCert configuration", (16,)),
    Block("ea5eb74c0b10281b56cd9264abd61842b062c7bb02f8d0c018725388c30c8a00", "• The caCert configuration", (17,)),
    Block("2c1bc1f0d399e3ea2b9489dca2c9940f476890740517986b95dc47268fe020d7", "When using a builtin backend", (18,)),
    Block("1997e7b16772ffdba6511442b090898f1d0551469c374e0951c482bd9b692d59", "• {mesh", (18,)),
    Block("a96eee46287f38d7df6a90f14ae8fe4f10e3051ab378c7689d0d5246bbe4993f", "• {mesh", (18,)),
    Block("a866de6a73f49fd97852965db6763a117e5666886a365e71534d51f14f6aee79", "On Kubernetes, Kuma secrets", (19,)),
    Block("75e34cba59209e22ffa16c9a181c5fbf0fb892bcd922f2a5f32c86098b06ecdf", "We can retrieve the secrets", (20,)),
    Block("2b045ccc7941fc6c1eb2fe92a9769f5fbe1abdb44f045c0d79c217c6920654a7", "The following command can be", (20,)),
    Block("b74ed0ea67ea3d1992688828bbf9409d82adf8288085da147ffd1809708a547a", "kumactl get secrets [-m", (20,)),
    Block("222bad71e7ea39c16a59dd3e7bd32fffec309d6904bcdeff120de954cd9712e5", "If you choose to provide", (21,)),
    Block("8ccdf83c1efbf0fd788ed2c73d67045913d67bc063996eff9ef3d40001b99060", "Unlike the builtin backend,", (22,)),
    Block("1ec6a7f198e68403cd254f2c731f4b517f8f73952f86ebb20755d2fdf7671dcc", "Kuma then provisions data", (23,)),
    Block("74d3c237e08eaf69e3c75094415d304a0089dc16ddb5e62bd697930a7696bd4e", "Sample configuration:", (24,)),
    Block("f5b989530476beebf86fe2a921aa70aff494c0da32c5d156f25412596c41e7e6", "apiVersion: kuma.io/v1alpha1", (24,)),
    Block("4ab6df65fb597602ed6a9ceabaa96dabb72cc4e113bae4b64cab3ac25cb75917", "We will apply the", (15,)),
    Block("711a679e4bfa46bc6bf2b5753d68b73d8267f2c4ca3e0ee8a25e79f37e909b79", "A few considerations:", (16,)),
    Block("5f4c214aa6ea7b00d4cff748d338310b935ca473b147981f567dee482c250627", "• The dpCert configuration", (16,)),
    Block("ddf20efc6557ed9ac2590c79b5bcdc263c2f19b3e9eb61845b23f320d67a0300", "• The Secrets must exist", (25,)),
    Block("74470eefc23c8b5b5e0fd19a2c3ed12e176009b4a460fd54628e3b9db12c3937", "You can also work with", (26,)),
    Block("7a0f7998ba225a01e3b9e5ce3597b1410cd14c811c838927d17965ffd4520ec0", "You can chain certificates", (27,)),
    Block("8a6da6576be0441166f87097850d54d25daaa69b3b08773fdd9e718c10d90f30", "Sample certificate file for", (28,)),
    Block("80d716b80ca48a9ba3db6df2a87d6f821bd8f3a01a5e7e319c2c7879a51ccd57", "-----BEGIN CERTIFICATE-----", (28,)),
    Block("4fc7f2435b17af26bab84b6fa469fc52355d4347c88aa4e12e39c88f23efaeb5", "When using an arbitrary", (29,)),
    Block("6f247302d1f43608c9636761389590b9482ef4c78e26d5921f9f95e5844d0842", "1. It MUST have basic", (30,)),
    Block("0cef152502911adb68b13c74a2bffc1a7b03ac03ce7d12648ad2f142ebc354ee", "2. It MUST have key", (31,)),
    Block("2ccce72d8e52be4b8b857df7575b2a80d0fabd8a5eeb45f62b85f0cdb3e66b03", "3. It MUST NOT have", (32,)),
    Block("f5600090665fc9ea265f3ad2305fa1b404663611b1336615a92ab33bb5405688", "4. It SHOULD NOT set", (33,)),
    Block("818022d34cb4a0dc7408fc18f8fa95fe839f1716979aa94d3aa21faec6bb8a9b", "Do not use the following", (34,)),
    Block("5c886e3cc746c1fa475d1bbe4731e60a30b28cb89fc6a17e1dff1f744fa750ce", "Below we can find an", (34,)),
    Block("1829776aa5005b9aab2cd083ed4fc448b13927eae02952e08636775b80157ef9", "The following command will", (34,)),
    Block("443aeade9d726e00e534d30706a35a56c4cc63fa45710b6615356314cb7169a6", "SAMPLE_CA_CONFIG=", (34,)),
    Block("441ae74a02d1bf6f0eafa922625cc194da5931b22b1370c657fdd37d18a8ea50", "openssl req -config", (34,)),
    Block("f746517373349f847ab8276ce71d39a4fdb3bef1114ba549b06027a9ad8bf12e", "The command will generate a", (35,)),
    Block("5f08d409f5dee2ed73c9153b1c523632df22e2b5cd52b263b2e5fba946697ea9", "In development mode we may", (36,)),
    Block("791f33269e2df352e1529e0668c435e9be2f7986976189aa11c0b87e9851ba47", "Using the inline modes in", (37,)),
    Block("77b2f252fb40d2e05c52589d426a4077193253d2408d005a0cfd6398748de314", "Kuma offers an alternative", (36,)),
    Block("ebf9f1f5d7f9acc937fa2667e360effc5f193a39280442615c3cc63b7cbdbd05", "Please note the inline", (38,)),
    Block("91b3e982e80ede5e9b3a4c307b8f289e025118e595fe98dedee5e4ccfca02218", "apiVersion: kuma.io/v1alpha1", (38,)),
    Block("513bcce2fee45322fe1fffb494dab4a251ea6b9eb777cd9ab36e60213176e688", "In version 1.4.1 and later,", (39,)),
    Block("4bbea6c7ffc36cf6c4d8624d6970062abb5eea300f950824d41331970d053dda", "Permissive mTLS mode", (40, 41, 42)),
    Block("c7296951d90f5138af2e1233391f13391cd85cd9d9b3cfa253650654de896b84", "PERMISSIVE mode is not", (43,)),
    Block("4105ff57e486b9510f7829ac80f02a41ba821b1cb0d179c8e661440aed9c54ff", "apiVersion: kuma.io/v1alpha1", (44,)),
    Block("b40f0c61e9ca23420319a29c5b57e3a821392ffe13eb8ef3729e5f3a299aa244", "Once a CA backend has", (45,)),
    Block("b6a02b54866d217ce16735ae16a5278bff6b4d7a67a4cf1a47cbb07ae74442f5", "Unlike the CA certificate,", (46,)),
    Block("6958fc610362cade374bac54e7af874e3031a2d1f59ecc2ee3b906a0c2ed12d1", "By default, the expiration", (47,)),
    Block("f7dbf477b7858552df308b24b4245e5781ed2f7d15f278bbc535a600e8987a9c", "You can update the duration", (48,)),
    Block("61498f0102e8aeafe90cfaf39cffce91c0f45bd2697a2e9ac2034f1a8915ee8f", "You can inspect the", (49,)),
    Block("4b03b87fdc2f1bfcf8b31908f294f3c5d1be14ec15118cdf15020b81518769ec", "We can use the Kuma", (49,)),
    Block("7be62b7eb6e2894923bf5513c4033b69074af7f92df9f8369a30654c1be331eb", "kumactl inspect dataplanes #", (49,)),
    Block("17093c71a992f6612ea0ce4262f3425ce51bfd710571d23f269cd87969742435", "Please note the CERT", (50,)),
    Block("1e967ca8fa342f4964ad63d774b7827d87307d9323bae34fa3779d3f473840c8", "A new data plane proxy", (51,)),
    Block("79f027f65f275c4fe8f32bb0897d7d6f56333a10185b8969e18fec1f0efb773e", "• A data plane proxy", (51,)),
    Block("bdd9171e7ba38d4d5954e3a7072e3ca584fe343aab5486effd96b543683e738e", "• The control plane is", (52,)),
    Block("e316ee71d96e511cf7d03c1726df500d7b835dea954649d9433f7620b2cca720", "• The data plane proxy", (53,)),
)
