"""A small student with random weights, whose masks are not flat; imports torch when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gms_rt.model.student import Student

SIZE = 64


def small_student(**shape: Any) -> Student:
    """A student of one block a level that has seen a few pictures, always with the same weights."""
    import torch

    from gms_rt.demo.phantoms import phantom_images
    from gms_rt.model.student import Student, StudentShape

    torch.manual_seed(5)
    student = Student(StudentShape(**{"size": SIZE, "width": 16, "blocks": (1, 1, 1), "latent_channels": 4, **shape}))
    pixels = torch.from_numpy(phantom_images(range(16), SIZE, SIZE)).permute(0, 3, 1, 2) / 255
    for _ in range(12):
        student.taught(pixels)
    student.eval()
    with torch.no_grad():  # spread over the grey levels
        logits = student(pixels)
        student.mask.weight.mul_(2 / logits.std())
        assert student.mask.bias is not None
        student.mask.bias.sub_(logits.mean()).mul_(2 / logits.std())
    return student
