"""What NVIDIA's driver says of itself and its GPUs, in the forms that it has in the field."""

from __future__ import annotations

import doctest

import pytest

from launcher.agent import gpus

GCC = "GCC version:  gcc version 12.2.0 (GCC) \n"
VERSIONS = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n": (
        "535.104.05"
    ),
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  Release Build  "
    "(dvs-builder@U16-A24-9-2)  Thu Oct 10 12:15:00 UTC 2024\n": "565.57.01",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  555.58  Release Build  "
    "(portage@localhost)  Сб 29 июн 2024 14:36:22 MSK\n": "555.58",
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  35.3.1  Release Build  "
    "(buildbrain@mobile-u64-6289-d7000)  Sun Mar 19 08:09:33 PDT 2023\n": "35.3.1",
    "": "",
    "something else\n": "",
}
A100 = """Model: \t\t NVIDIA A100-SXM4-40GB
IRQ:   \t\t 330
GPU UUID: \t GPU-????????-????-????-????-????????????
Video BIOS: \t 92.00.45.00.03
Bus Type: \t PCIe
DMA Size: \t 47 bits
DMA Mask: \t 0x7fffffffffff
Bus Location: \t 0000:07:00.0
Device Minor: \t 3
GPU Firmware: \t 535.104.05
GPU Excluded:\t No
"""
# Some older drivers do not say which device a card is.
GTX_650 = """Model:           GeForce GTX 650
IRQ:             44
Video BIOS:      80.07.35.00.80
Bus Type:        PCIe
Bus Location:    0000:04:00.0
"""


def test_the_examples_hold() -> None:
    failed, tried = doctest.testmod(gpus)
    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize(("text", "version"), VERSIONS.items())
def test_the_drivers_version(text: str, version: str) -> None:
    assert gpus.read_version(text + GCC) == version


def test_a_gpus_number_and_model() -> None:
    assert gpus.read_information(A100) == (3, "NVIDIA A100-SXM4-40GB")
    assert gpus.read_information(GTX_650) is None
    assert gpus.read_information("") is None
