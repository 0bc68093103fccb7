"""Names of functions are written as their sources have them, whatever a module has for them."""

from __future__ import annotations

import pytest

from hookline_runtime.guest.backtrace import MAX_FRAMES, MAX_KNOWN, MAX_NAME, Functions, name_of


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"main.(*rules).find", "main.(*rules).find"),
        (b"src/index/check", "src/index/check"),
        (b"_ZN9my_plugin5rules4find17h0123456789abcdefE", "my_plugin::rules::find"),
        (b"my_plugin::rules::find::h0123456789abcdef", "my_plugin::rules::find"),
        (b"_ZN54_$LT$my_plugin..Rule$u20$as$u20$core..str..FromStr$GT$8from_str17h0123456789abcdefE",
         "<my_plugin::Rule as core::str::FromStr>::from_str"),
        (b"_ZN3abc5checkEPKci", "abc::check"),
        (b"_RNvNtCs1234_9my_plugin5rules4find", "my_plugin::rules::find"),
        (b"_RNvMs_NtCsdBezzDwma51_9my_plugin5rulesNtB4_4Rule4find", "my_plugin::rules::Rule::find"),
        (b"_RINvCs5_9my_plugin5checkKj3_Es0_0", "my_plugin::check"),
        (b"_ZN", "_ZN"), (b"_R", "_R"), (b"_ZN999abc", "abc"), (b"_RNv999abc", "abc"), (b"_ZN0", "_ZN0"),
        (b"_ZN6$u41$xE", "Ax"), (b"_ZN10$uffffff$xE", "\\U0010ffffx"),
        (b"a\nb\x1b\xff\xc3\xa9", "a\\nb\\x1b\\ufffd\\xe9"),
        (b"", None), (None, None),
    ],
)  # fmt: skip
def test_a_name_is_as_its_source_has_it(raw, shown):
    """Rust's two manglings, C++'s, and those that need nothing; what is none of them stays as it is, escaped."""
    assert name_of(raw) == shown


@pytest.mark.parametrize("begin", [b"_ZN", b"_R", b"_RNv", b"", b"_ZN9", b"_RC1"])
@pytest.mark.parametrize(
    "rest", [b"9" * 4000, b"1a" * 4000, b"$u1$" * 2000, b"s_" * 4000, b"\xf0" * 4000, b"u1_" * 2000]
)
def test_no_name_is_longer_than_it_may_be_or_takes_long(begin, rest):
    """It is a stranger's."""
    shown = name_of(begin + rest)
    assert shown is None or (len(shown) <= MAX_NAME and shown.isascii() and shown.isprintable())


def backtrace(*names, entered="pre_query"):
    """Of these functions."""
    functions = Functions()
    functions.names.update(enumerate(names))
    return functions.backtrace(list(range(len(names))), entered)


def test_what_a_language_runs_between_a_panic_and_its_end_is_left_out():
    """Nobody looks for a fault there; where nothing else is there, it is all that there is."""
    rust = [
        "__rust_start_panic",
        "rust_panic",
        "std::panicking::begin_panic",
        "rust_begin_unwind",
        "core::panicking::panic",
    ]
    assert backtrace(*rust, "rules::find", "core::ops::call", None) == ("rules::find", "core::ops::call", "pre_query")
    assert backtrace("runtime.exit", "runtime.gopanic", "main.find", "custom") == ("main.find", "custom")
    assert backtrace("abort", "src/index/check") == ("src/index/check",)
    assert backtrace("rust_panic", "core::panicking::panic") == ("rust_panic", "core::panicking::panic")


def test_a_backtrace_is_short():
    """Equal functions in a row are one of it; of more than eight, the last is told and those before it are not."""
    assert backtrace("a", "b", "b", "b", "c", None) == ("a", "b (3 times)", "c", "pre_query")
    long = backtrace(*(f"f{number}" for number in range(15)))
    assert len(long) == MAX_FRAMES
    assert long == ("f0", "f1", "f2", "f3", "f4", "f5", "...", "f14")
    assert backtrace() == ()


def test_what_the_engine_cut_off_has_no_name_of_an_export():
    """It keeps twenty frames: the last of these is not the one that was called."""
    assert backtrace(*["deep"] * 19, None)[-1] == "function 19"


def test_of_one_module_so_many_names_are_remembered():
    """And what is shown of a backtrace is that of its functions, also after another."""
    functions = Functions()
    functions.names.update(dict.fromkeys(range(MAX_KNOWN + 1), "a"))
    assert functions.backtrace([1, 2], "route") == ("a (2 times)",)
    functions.make_room()
    assert functions.names == {}
    functions.names.update({1: "b", 2: "c"})
    assert functions.backtrace([2, 1], "route") == ("c", "b")
