"""Reads the public keys in the settings, by which tokens are verified that others have signed."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import rsa

from kuma.app.configuration.settings import PublicKeySection, Settings, TokensSection
from kuma.base.errors import Misconfigured
from kuma.base.files import content
from kuma.tokens import validation
from kuma.tokens.validation import Validation


def of_proxies(settings: Settings) -> Validation:
    """Returns how dataplane tokens are verified.

    Raises:
        Misconfigured: a key cannot be read, or is none; names the setting.
    """
    section, where = settings.dp_server.authn.dp_proxy.dp_token, "dpServer.authn.dpProxy.dpToken"
    found: dict[str, dict[str, rsa.RSAPublicKey]] = {}
    for path, given, key in _keys(section, where):
        if not given.mesh:
            raise Misconfigured(f"{path}.mesh: cannot be empty: the tokens of which mesh does this key verify?")
        if given.kid in found.setdefault(given.mesh, {}):
            raise Misconfigured(f'{path}.kid: "{given.kid}" is the name of another key of that mesh')
        found[given.mesh][given.kid] = key
    return Validation(section.validator.use_secrets, section.enable_issuer, by_mesh=found)


def of_users(settings: Settings) -> Validation:
    """Returns how user tokens are verified.

    Raises:
        Misconfigured: a key cannot be read, or is none; names the setting.
    """
    section, where = settings.api_server.authn.tokens, "apiServer.authn.tokens"
    found: dict[str, rsa.RSAPublicKey] = {}
    for path, given, key in _keys(section, where):
        if given.mesh:
            raise Misconfigured(f"{path}.mesh: users are of no mesh; leave it out")
        if given.kid in found:
            raise Misconfigured(f'{path}.kid: "{given.kid}" is the name of another key')
        found[given.kid] = key
    return Validation(section.validator.use_secrets, section.enable_issuer, keys=found)


def _keys(section: TokensSection, where: str) -> Iterator[tuple[str, PublicKeySection, rsa.RSAPublicKey]]:
    for index, given in enumerate(section.validator.public_keys):
        path = f"{where}.validator.publicKeys[{index}]"
        if not given.kid:
            raise Misconfigured(f"{path}.kid: cannot be empty: tokens name their key by it")
        if bool(given.key) == bool(given.key_file):
            raise Misconfigured(f"{path}: give either key or keyFile")
        field = "keyFile" if given.key_file else "key"
        try:
            pem = content(given.key_file.expanduser()) if given.key_file else given.key.encode()
            yield path, given, validation.public_key(pem)
        except OSError as error:
            raise Misconfigured(f"{path}.keyFile: cannot read {given.key_file}: {error.strerror}") from None
        except ValueError as error:
            raise Misconfigured(f"{path}.{field}: {error}") from None
