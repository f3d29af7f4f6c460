"""PTX text: its entry and parameters, and the assembler that checks it."""
