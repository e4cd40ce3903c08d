"""ATKD inside TRL's experimental GKD trainer, on fixed data; needs `pip install "atkd[trl]"`."""

from __future__ import annotations

import tempfile

import tiny
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq
from trl.experimental.gkd import GKDConfig

from atkd.integrations import TRLKDTrainer

tokenizer = tiny.tokenizer()
trainer = TRLKDTrainer(
    tiny.model(16),  # the student
    tiny.model(32),  # the teacher
    loss="atkd",
    loss_settings={"easy_weight": 0.2, "hard_fraction": 0.5},
    args=GKDConfig(
        output_dir=tempfile.mkdtemp(),
        lmbda=0.0,  # no answers of the student's own: the data are fixed
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        num_train_epochs=4,
        learning_rate=1e-2,
        logging_steps=4,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        bf16=False,
        activation_checkpointing=False,
    ),
    train_dataset=Dataset.from_list(tiny.samples()),
    processing_class=tokenizer,
    data_collator=DataCollatorForSeq2Seq(tokenizer),  # base models have no chat template
)
trainer.train()
