"""ATKD inside a plain training loop; needs torch alone.

Any two modules that give logits over one vocabulary will do, of transformers say model(ids).logits.
"""

from __future__ import annotations

import torch
from torch import nn

from atkd import atkd_loss

torch.manual_seed(0)
student = nn.Sequential(nn.Embedding(64, 16), nn.Linear(16, 64))
teacher = nn.Sequential(nn.Embedding(64, 32), nn.Linear(32, 64))
optimizer = torch.optim.AdamW(student.parameters(), lr=3e-2)
input_ids = torch.randint(64, (4, 12))
labels = input_ids.clone()
labels[:, :5] = -100  # the prompt is not supervised

for step in range(20):
    with torch.no_grad():
        teacher_logits = teacher(input_ids)
    student_logits = student(input_ids)
    # The logits at t predict the token at t + 1.
    loss = atkd_loss(student_logits[:, :-1], teacher_logits[:, :-1], labels[:, 1:])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 5 == 4:
        print(f"step {step + 1:2d}  loss {loss.item():.3f}")
