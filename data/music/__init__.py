"""Music: MIDI files, tokens, folders of tunes, what training reads of them, measures, tunes to see and to hear."""
