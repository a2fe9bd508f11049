//! Text that compresses as that of applications does: JSON of a market, with new values in each message.

use std::fmt::Write as _;

use crate::random::Random;

const SYMBOLS: [&str; 8] =
    ["BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD", "ADA-USD", "DOT-USD", "LTC-USD", "AVAX-USD"];

/// Messages below this size are one price each, larger ones are lists of orders.
const LIST: usize = 1024;

/// A sequence of messages. The seed determines all of them.
pub(crate) struct Texts {
    random: Random,
    sequence: usize,
    /// Milliseconds.
    time: usize,
    /// The price of each symbol in cents.
    prices: [usize; SYMBOLS.len()],
}

impl Texts {
    pub(crate) fn new(seed: usize) -> Self {
        let mut random = Random::new(seed as u64);
        Self {
            sequence: 48_000_000 + random.below(1_000_000),
            time: 1_764_466_029_000,
            prices: std::array::from_fn(|_| 100_000 + random.below(9_900_000)),
            random,
        }
    }

    /// The next message. It is cut off at `size` bytes, or filled up with spaces.
    pub(crate) fn next(&mut self, size: usize) -> Vec<u8> {
        let mut text = String::with_capacity(size + 256);
        if size < LIST {
            self.price(&mut text);
        } else {
            self.orders(&mut text, size);
        }
        let mut text = text.into_bytes();
        text.resize(size, b' ');
        text
    }

    /// One price, of 218 to 228 bytes.
    fn price(&mut self, text: &mut String) {
        let (sequence, symbol, price, time) = self.trade();
        let (bid, ask, last) = (cents(price - 3), cents(price + 3), cents(price));
        let [bid_size, ask_size] = [self.random.below(4000), self.random.below(4000)].map(cents);
        let side = ["buy", "sell"][self.random.below(2)];
        let volume = 10_000 + self.random.below(10_000);
        let thousandths = self.random.below(1000);
        let _ = write!(text, r#"{{"channel":"ticker","market":"spot","sequence":{sequence},"#);
        let _ = write!(text, r#""symbol":"{symbol}","bid":"{bid}","bidSize":"{bid_size}","#);
        let _ = write!(
            text,
            r#""ask":"{ask}","askSize":"{ask_size}","last":"{last}","side":"{side}","#
        );
        let _ = write!(text, r#""volume24h":"{volume}.{thousandths:03}","time":{time}}}"#);
    }

    /// At least `size` bytes of orders, of about 130 bytes each.
    fn orders(&mut self, text: &mut String, size: usize) {
        let _ = write!(text, r#"{{"channel":"orders","sequence":{},"orders":["#, self.sequence);
        while text.len() < size {
            let (id, symbol, price, time) = self.trade();
            let (user, price) = (10_000 + self.random.below(90_000), cents(price));
            let side = ["buy", "sell"][self.random.below(2)];
            let (whole, thousandths) = (self.random.below(40), self.random.below(1000));
            let kind = ["limit", "limit", "limit", "market"][self.random.below(4)];
            let _ =
                write!(text, r#"{{"id":{id},"user":{user},"symbol":"{symbol}","side":"{side}","#);
            let _ = write!(text, r#""price":"{price}","size":"{whole}.{thousandths:03}","#);
            let _ = write!(text, r#""type":"{kind}","time":{time}}},"#);
        }
    }

    /// The number, the symbol, the price and the time of what happens next.
    fn trade(&mut self) -> (usize, &'static str, usize, usize) {
        self.sequence += 1 + self.random.below(4);
        self.time += self.random.below(40);
        let index = self.random.below(SYMBOLS.len());
        let price = &mut self.prices[index];
        *price = (*price + self.random.below(21)).saturating_sub(10).max(100);
        (self.sequence, SYMBOLS[index], *price, self.time)
    }
}

fn cents(amount: usize) -> String {
    format!("{}.{:02}", amount / 100, amount % 100)
}
