//! Plain text for pre-training: the facts of the tables in sentences, small sums, and very small stories.

use super::facts::{
    ANIMALS, COLOURS, COUNTRIES, DAYS, JOBS, MONTHS, NAMES, OPPOSITES, capitalised, in_words, season, with_article,
};
use super::grammar::{Exchange, Kind, is_held_out_difference, is_held_out_sum, made_up};
use super::random::Random;

/// Some sentences, of one topic or of many.
pub(crate) fn document(random: &mut Random) -> String {
    match random.below(10) {
        0 | 1 => story(random),
        2 | 3 => talk(random),
        _ => {
            let count = random.between(4, 8);
            (0..count).map(|_| sentence(random)).collect::<Vec<_>>().join(" ")
        }
    }
}

fn sentence(random: &mut Random) -> String {
    match random.below(18) {
        0..=5 => calculation(random),
        6 => {
            let number = random.below(100);
            match random.below(3) {
                0 => format!("{number} is {}.", in_words(number)),
                1 => format!("After {number} comes {}.", number + 1),
                _ => format!("{number} is {}.", if number.is_multiple_of(2) { "even" } else { "odd" }),
            }
        }
        7 => {
            let first = random.below(40);
            let numbers: Vec<String> = (first..first + random.between(4, 9)).map(|number| number.to_string()).collect();
            format!("{}.", numbers.join(", "))
        }
        8 => {
            let place = random.below(7);
            match random.below(3) {
                0 => format!("After {} comes {}.", DAYS[place], DAYS[(place + 1) % 7]),
                1 => format!("Before {} comes {}.", DAYS[(place + 1) % 7], DAYS[place]),
                _ => format!("{}.", (place..place + 7).map(|place| DAYS[place % 7]).collect::<Vec<_>>().join(", ")),
            }
        }
        9 => {
            let place = random.below(12);
            let (month, days) = MONTHS[place];
            match random.below(4) {
                0 => format!("{month} has {days} days and is in {}.", season(place)),
                1 => format!("After {month} comes {}.", MONTHS[(place + 1) % 12].0),
                2 => format!("Month number {} is {month}.", place + 1),
                _ => format!("{}.", MONTHS[place..].iter().map(|(month, _)| *month).collect::<Vec<_>>().join(", ")),
            }
        }
        10 => {
            let (thing, colour, several) = random.pick(&COLOURS);
            format!("{} {} {colour}.", capitalised(thing), if several { "are" } else { "is" })
        }
        11 => {
            let (one, other) = random.pick(&OPPOSITES);
            match random.below(3) {
                0 => format!("The opposite of {one} is {other}."),
                1 => format!("The opposite of {other} is {one}."),
                _ => format!("What is not {one} may be {other}."),
            }
        }
        12..=14 => {
            let (country, capital, language) = random.pick(&COUNTRIES);
            match random.below(4) {
                0 => format!("The capital of {country} is {capital}."),
                1 => format!("{capital} is the capital of {country}."),
                2 => format!("People in {country} speak {language}."),
                _ => format!("{capital} is in {country}, where people speak {language}."),
            }
        }
        15 | 16 => {
            let (animal, sound, legs, young, class) = random.pick(&ANIMALS);
            let one = capitalised(&with_article(animal));
            match random.below(4) {
                0 => format!("{one} {sound}."),
                1 => format!("{one} has {legs} legs."),
                2 => format!("A young {animal} is called {}.", with_article(young)),
                _ => format!("{one} is {}.", with_article(class)),
            }
        }
        _ => {
            let (job, work) = random.pick(&JOBS);
            format!("{} {work}.", capitalised(&with_article(job)))
        }
    }
}

/// A sum, difference or product that is not held out.
fn calculation(random: &mut Random) -> String {
    loop {
        let most = if random.percent(50) { 12 } else { 50 };
        let (a, b) = (random.below(most + 1), random.below(most + 1));
        let signs = random.percent(50);
        match random.below(5) {
            0..=2 if !is_held_out_sum(a, b) => {
                return if signs { format!("{a} + {b} = {}.", a + b) } else { format!("{a} plus {b} is {}.", a + b) };
            }
            3 if !is_held_out_difference(a + b, a) => {
                return if signs { format!("{} - {a} = {b}.", a + b) } else { format!("{} minus {a} is {b}.", a + b) };
            }
            4 => {
                let (a, b) = (a % 11, b % 11);
                return if signs { format!("{a} x {b} = {}.", a * b) } else { format!("{a} times {b} is {}.", a * b) };
            }
            _ => {}
        }
    }
}

fn story(random: &mut Random) -> String {
    const THINGS: [&str; 8] = ["apples", "books", "coins", "stones", "cards", "eggs", "pens", "shells"];
    // Names that were never seen teach to repeat what was read.
    let name = if random.percent(70) { made_up(random) } else { random.pick(&NAMES).to_owned() };
    let other = random.pick(&NAMES);
    let (country, capital, language) = random.pick(&COUNTRIES);
    let (job, work) = random.pick(&JOBS);
    let (animal, sound, ..) = random.pick(&ANIMALS);
    let day = random.below(7);
    let mut sentences = vec![
        format!("{name} lives in {capital}, the capital of {country}, and speaks {language}."),
        format!("{name} is {}. {} {work}.", with_article(job), capitalised(&with_article(job))),
        format!("{name} has {}. It {sound}.", with_article(animal)),
        format!("Today is {}, so tomorrow is {}.", DAYS[day], DAYS[(day + 1) % 7]),
        format!("\"My name is {name}.\" \"Nice to meet you, {name}!\" said {other}."),
    ];
    let (a, b) = (random.between(1, 20), random.between(1, 20));
    if !is_held_out_sum(a, b) {
        let thing = random.pick(&THINGS);
        sentences.push(format!(
            "{name} has {a} {thing} and gets {b} more. {a} plus {b} is {}, so now it is {}.",
            a + b,
            a + b
        ));
    }
    random.shuffle(&mut sentences);
    sentences.truncate(random.between(3, 5));
    sentences.join(" ")
}

/// Questions and answers without roles.
fn talk(random: &mut Random) -> String {
    let mut lines = Vec::new();
    while lines.len() < 4 {
        let exchange = Exchange::draw(Kind::draw(random), random);
        if !exchange.is_held_out() {
            lines.extend(exchange.turns.into_iter().map(|(question, answer)| format!("{question} {answer}")));
        }
    }
    lines.join("\n")
}
