"""The bundled demo model: drawn scenes and questions -> a small checkpoint, its INT4 IR, and accuracy per skill."""
