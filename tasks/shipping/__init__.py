"""Jobs that may wait go to the API's Message Batches, at half the price: a thread of one worker ships them."""
