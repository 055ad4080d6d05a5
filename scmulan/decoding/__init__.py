"""From logits to legal ids: sampling of cells under the automaton, and scoring of closed label sets over a trie."""
