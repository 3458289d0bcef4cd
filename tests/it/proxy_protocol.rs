//! Balancers and reverse proxies in front: whose address counts, and who is believed.
