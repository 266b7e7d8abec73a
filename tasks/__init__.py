"""What runs on the queues, and the nouns and stores that it stands on."""
