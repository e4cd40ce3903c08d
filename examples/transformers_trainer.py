"""ATKD inside transformers' `Trainer`; needs `pip install "atkd[trainer]"`."""

from __future__ import annotations

import tempfile

import tiny
from transformers import DataCollatorForSeq2Seq, TrainingArguments

from atkd.integrations import KDTrainer

tokenizer = tiny.tokenizer()
trainer = KDTrainer(
    tiny.model(16),  # the student
    tiny.model(32),  # the teacher
    loss="atkd",
    loss_settings={"easy_weight": 0.2, "hard_fraction": 0.5, "scope": "batch"},
    args=TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,  # the split is over all 16 samples of a step
        num_train_epochs=4,
        learning_rate=1e-2,
        logging_steps=4,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
    ),
    train_dataset=tiny.samples(),
    eval_dataset=tiny.samples(16),
    processing_class=tokenizer,  # its size cuts embedding rows that are no token
    data_collator=DataCollatorForSeq2Seq(tokenizer),  # keeps labels, EOS as well
)
trainer.train()
print(trainer.evaluate())
