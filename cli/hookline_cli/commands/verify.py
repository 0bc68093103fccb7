"""``hookline verify``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hookline_cli.frame import FILE, Answer, UsageError, command, registry_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.resources import LocalWasmPlugin
    from hookline_artifacts.store import Artifact
    from hookline_artifacts.trust.trial import Trust

_EXAMPLES = """
hookline verify registry.example.com/plugins/guard:1.0.0 --key release.pub
hookline verify registry.example.com/plugins/guard:1.0.0 --key a.pub --key b.pub --minimum 2
hookline verify registry.example.com/plugins/guard:1.0.0 --identity https://github.com/acme/guard/* \\
  --issuer https://token.actions.githubusercontent.com --trust-root trusted_root.json
hookline verify plugin.wasm --ed25519 acme.pub
hookline verify oci-layout:./mirror/guard:1.0.0 --key release.pub --signed-as registry.example.com/plugins/guard
hookline verify --manifest guard.yaml --policy policy.yaml
"""
_RAW_KEY: Final = 44
"""Characters of 32 bytes in base64."""


@command(
    "verify",
    text="""Verify who has signed an artifact.

    TARGET is a reference, oci-layout:FOLDER[:TAG], a .wasm or a .tar.gz. It is asked what the operator would ask of a
    resource with these keys in spec.verify, by the same code: the signatures are verified before the module is
    unpacked, and the module is fetched and checked. Several signers are alternatives, of which --minimum have to have
    signed.

    With --manifest, what a WasmPlugin asks for counts too, and TARGET may be left out. With --policy, so does what a
    PluginTrustPolicy asks for.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["target"], required=False),
        click.Option(["--key", "keys"], multiple=True, type=FILE, metavar="FILE",
                     help="A public key in PEM, or a folder of *.pub. May be repeated."),
        click.Option(["--ed25519"], multiple=True, metavar="KEY|FILE",
                     help="An Ed25519 key: base64, a file, or a folder of *.pub. May be repeated."),
        click.Option(["--legacy"], is_flag=True,
                     help="Let HeliosDB's signatures over the module alone count for --ed25519."),
        click.Option(["--identity"], metavar="SUBJECT",
                     help="Who has signed without a key: an address, a workflow's URL, or its beginning and a *."),
        click.Option(["--issuer"], metavar="URL", help="Who vouches for --identity."),
        click.Option(["--trust-root"], type=FILE, metavar="FILE",
                     help="Sigstore's trusted_root.json for --identity. Default: that of its public authority."),
        click.Option(["--minimum"], type=click.IntRange(1, 16), default=1, show_default=True, metavar="N",
                     help="How many different signers it takes."),
        click.Option(["--attestation", "attestations"], multiple=True, metavar="TYPE",
                     help="A predicate type that one of the signers must have attested, beside the signature. May be "
                     "repeated."),
        click.Option(["--signed-as"], multiple=True, metavar="REPOSITORY",
                     help="A repository that signatures may name instead, where the artifact is a copy."),
        click.Option(["--policy", "policies"], multiple=True, type=FILE, metavar="FILE",
                     help="A PluginTrustPolicy. May be repeated."),
        click.Option(["--manifest"], type=FILE, metavar="FILE", help="A WasmPlugin whose spec.verify counts."),
        click.Option(["--name"], metavar="NAME", help="The plugin's name. Default: of --manifest, or from TARGET."),
        *registry_options(),
    ],
)  # fmt: skip
async def VERIFY(  # noqa: N802 - what the decorator makes of it is a constant
    *, insecure: bool, ca: Path | None, docker_config: Path | None, **given: Any
) -> Answer:
    """Verify an artifact."""
    from hookline_artifacts.resolve import own_requirement, tried  # noqa: PLC0415
    from hookline_artifacts.trust.trial import Trial  # noqa: PLC0415
    from hookline_cli import reading  # noqa: PLC0415
    from hookline_cli.policies import applying, made  # noqa: PLC0415
    from hookline_cli.registries import Reach  # noqa: PLC0415

    wanted = _Wanted(**given)
    wanted.check()
    documents = reading.read([*wanted.policies, *([wanted.manifest] if wanted.manifest is not None else [])])
    plugin, base = _plugin(wanted, documents, insecure=insecure)
    policies = applying([await made(each, documents) for each in documents.policies], plugin, documents)
    own = await own_requirement(plugin, documents, base)
    if own is None and not any(each.requirement for each in policies):
        raise UsageError("nothing says who must have signed: give --key, --ed25519, --identity, --manifest or --policy")
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    trial = Trial(plugin, policies, own)
    trial.check_settings()
    async with reach.fetcher() as fetcher:
        reference, artifact = await tried(trial, plugin, fetcher, documents, base=base, access=reach.access)
        return _answer(reference, artifact, trial.result())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """The options."""

    target: str | None
    keys: Sequence[Path]
    ed25519: Sequence[str]
    legacy: bool
    identity: str | None
    issuer: str | None
    trust_root: Path | None
    minimum: int
    attestations: Sequence[str]
    signed_as: Sequence[str]
    policies: Sequence[Path]
    manifest: Path | None
    name: str | None

    def check(self) -> None:
        """Raise UsageError for what does not go together."""
        if self.target is None and self.manifest is None:
            raise UsageError("give a TARGET, or --manifest with a WasmPlugin that has a source")
        if (self.identity is None) != (self.issuer is None):
            raise UsageError("--identity and --issuer go together: who has signed, and who vouches for it")
        if self.trust_root is not None and self.identity is None and self.manifest is None:
            raise UsageError("--trust-root is for --identity")

    def signers(self) -> list[dict[str, Any]]:
        """Those of the options, as ``anyOf`` has them."""
        found: list[dict[str, Any]] = [{"key": {"from": _file(each)}} for each in self.keys]
        for each in self.ed25519:
            is_key = len(each) == _RAW_KEY and each.endswith("=") and not Path(each).exists()
            found.append(
                {"ed25519": {**({"key": each} if is_key else {"from": _file(Path(each))}), "legacy": self.legacy}}
            )
        if self.identity is not None:
            prefix = self.identity.endswith("*")
            subject = {"subjectPrefix": self.identity[:-1]} if prefix else {"subject": self.identity}
            found.append({"keyless": {"issuer": self.issuer, **subject}})
        return [{**each, **({"signedAs": list(self.signed_as)} if self.signed_as else {})} for each in found]


def _file(path: Path) -> dict[str, str]:
    return {"file": str(path.absolute())}


def _plugin(wanted: _Wanted, documents: Any, *, insecure: bool) -> tuple[LocalWasmPlugin, Path]:
    """The resource that is verified, and the folder of its files. Raises ConfigError, UsageError and FetchError."""
    from pydantic import ValidationError  # noqa: PLC0415

    from hookline_api.resources import LocalWasmPlugin  # noqa: PLC0415
    from hookline_api.sentences import first  # noqa: PLC0415
    from hookline_artifacts.errors import ConfigError  # noqa: PLC0415
    from hookline_cli.registries import source_of  # noqa: PLC0415

    if documents.problems:
        raise ConfigError(documents.problems[0])
    named = [each for each in documents.plugins if wanted.name in {None, each.document.metadata.name}]
    if wanted.manifest is not None and len(named) != 1:
        raise UsageError(f"{wanted.manifest} has {len(named)} WasmPlugins that may be meant; give --name")
    spec: dict[str, Any] = {}
    name, namespace, labels, base = wanted.name, None, {}, Path.cwd()
    if named and wanted.manifest is not None:
        plugin, base = named[0].document, named[0].base
        spec = plugin.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        name, namespace, labels = plugin.metadata.name, plugin.metadata.namespace, plugin.metadata.labels
    if wanted.target is not None:
        source, short = source_of(wanted.target, insecure=insecure)
        spec["source"], name = source, name or short
    spec["verify"] = _verify(wanted, spec.get("verify") or {})
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    try:
        return LocalWasmPlugin.model_validate({"metadata": metadata, "spec": spec}), base
    except ValidationError as error:
        raise ConfigError(f"what is asked for makes no sense: {first(error)}") from None


def _verify(wanted: _Wanted, own: dict[str, Any]) -> dict[str, Any] | None:
    """``spec.verify`` with what the options ask for."""
    signers = wanted.signers()
    asked = dict(own)
    if signers:
        asked["anyOf"] = [*asked.get("anyOf", ()), *signers]
    if wanted.minimum > 1:
        asked["minimum"] = wanted.minimum
    if wanted.trust_root is not None:
        asked["trustRoot"] = _file(wanted.trust_root)
    if wanted.attestations:
        more = [{"predicateType": each, "signers": signers} for each in wanted.attestations]
        asked["attestations"] = [*asked.get("attestations", ()), *more]
    return asked or None


def _answer(reference: str, artifact: Artifact, trust: Trust) -> Answer:
    proofs = [
        {
            "for": whose,
            "signer": each.signer,
            "keyId": each.key,
            "identity": each.identity or None,
            "logIndex": each.log_index,
            "time": each.time,
            "form": each.signature.form,
        }
        for whose, each in trust.proofs
    ]
    lines = [
        f"verified: {reference}",
        f"  {artifact.digest} (layout {artifact.layout}, module sha256:{artifact.sha256})",
    ]
    for each in proofs:
        by = f"key {each['keyId']}" if each["keyId"] else f"identity {each['identity']}"
        log = f", log index {each['logIndex']}" if each["logIndex"] is not None else ""
        at = f", {each['time']}" if each["time"] else ""
        lines.append(f"  signed by {each['signer']} ({each['form']}, {by}{log}{at}) for {each['for']}")
    lines += [f"  PluginTrustPolicy '{name}' (Audit) would refuse it: {why}" for name, why in trust.audits]
    return Answer(
        lines=lines,
        data={
            "verified": True,
            "target": reference,
            "digest": artifact.digest,
            "sha256": artifact.sha256,
            "size": artifact.size,
            "layout": artifact.layout,
            "proofs": proofs,
            "audits": [{"policy": name, "message": why} for name, why in trust.audits],
        },
    )
