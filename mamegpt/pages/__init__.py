"""What the pages of mamegpt share: their frame, their style sheet, their charts."""
