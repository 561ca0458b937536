//! What the built-in model knows: tables of simple facts.

/// Country, capital, main language.
pub(super) const COUNTRIES: [(&str, &str, &str); 36] = [
    ("France", "Paris", "French"),
    ("Germany", "Berlin", "German"),
    ("Italy", "Rome", "Italian"),
    ("Spain", "Madrid", "Spanish"),
    ("Portugal", "Lisbon", "Portuguese"),
    ("England", "London", "English"),
    ("Ireland", "Dublin", "English"),
    ("Scotland", "Edinburgh", "English"),
    ("Austria", "Vienna", "German"),
    ("Poland", "Warsaw", "Polish"),
    ("Greece", "Athens", "Greek"),
    ("Sweden", "Stockholm", "Swedish"),
    ("Norway", "Oslo", "Norwegian"),
    ("Denmark", "Copenhagen", "Danish"),
    ("Finland", "Helsinki", "Finnish"),
    ("Iceland", "Reykjavik", "Icelandic"),
    ("Hungary", "Budapest", "Hungarian"),
    ("Romania", "Bucharest", "Romanian"),
    ("Bulgaria", "Sofia", "Bulgarian"),
    ("Croatia", "Zagreb", "Croatian"),
    ("Turkey", "Ankara", "Turkish"),
    ("Egypt", "Cairo", "Arabic"),
    ("Morocco", "Rabat", "Arabic"),
    ("Kenya", "Nairobi", "Swahili"),
    ("Japan", "Tokyo", "Japanese"),
    ("China", "Beijing", "Chinese"),
    ("Vietnam", "Hanoi", "Vietnamese"),
    ("Thailand", "Bangkok", "Thai"),
    ("Mexico", "Mexico City", "Spanish"),
    ("Cuba", "Havana", "Spanish"),
    ("Peru", "Lima", "Spanish"),
    ("Chile", "Santiago", "Spanish"),
    ("Argentina", "Buenos Aires", "Spanish"),
    ("Brazil", "Brasilia", "Portuguese"),
    ("Canada", "Ottawa", "English"),
    ("Australia", "Canberra", "English"),
];

/// Each is the opposite of the other.
pub(super) const OPPOSITES: [(&str, &str); 32] = [
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("old", "new"),
    ("happy", "sad"),
    ("light", "dark"),
    ("open", "closed"),
    ("full", "empty"),
    ("high", "low"),
    ("long", "short"),
    ("wet", "dry"),
    ("hard", "soft"),
    ("early", "late"),
    ("rich", "poor"),
    ("strong", "weak"),
    ("loud", "quiet"),
    ("clean", "dirty"),
    ("near", "far"),
    ("left", "right"),
    ("up", "down"),
    ("day", "night"),
    ("true", "false"),
    ("thick", "thin"),
    ("wide", "narrow"),
    ("sweet", "sour"),
    ("heavy", "weightless"),
    ("deep", "shallow"),
    ("first", "last"),
    ("inside", "outside"),
    ("begin", "end"),
    ("smooth", "rough"),
    ("brave", "afraid"),
];

/// Thing, its colour, whether it is several.
pub(super) const COLOURS: [(&str, &str, bool); 26] = [
    ("the sky", "blue", false),
    ("grass", "green", false),
    ("snow", "white", false),
    ("coal", "black", false),
    ("blood", "red", false),
    ("a lemon", "yellow", false),
    ("a banana", "yellow", false),
    ("a carrot", "orange", false),
    ("a tomato", "red", false),
    ("a cucumber", "green", false),
    ("milk", "white", false),
    ("chocolate", "brown", false),
    ("a frog", "green", false),
    ("a flamingo", "pink", false),
    ("an elephant", "grey", false),
    ("a raven", "black", false),
    ("the sun", "yellow", false),
    ("the sea", "blue", false),
    ("a polar bear", "white", false),
    ("a strawberry", "red", false),
    ("a plum", "purple", false),
    ("wood", "brown", false),
    ("leaves", "green", true),
    ("clouds", "white", true),
    ("cherries", "red", true),
    ("peas", "green", true),
];

/// Animal, what it does when it speaks, legs, its young, its class.
pub(super) const ANIMALS: [(&str, &str, usize, &str, &str); 20] = [
    ("dog", "barks", 4, "puppy", "mammal"),
    ("cat", "meows", 4, "kitten", "mammal"),
    ("cow", "moos", 4, "calf", "mammal"),
    ("sheep", "bleats", 4, "lamb", "mammal"),
    ("horse", "neighs", 4, "foal", "mammal"),
    ("pig", "grunts", 4, "piglet", "mammal"),
    ("lion", "roars", 4, "cub", "mammal"),
    ("wolf", "howls", 4, "pup", "mammal"),
    ("mouse", "squeaks", 4, "pup", "mammal"),
    ("goat", "bleats", 4, "kid", "mammal"),
    ("hen", "clucks", 2, "chick", "bird"),
    ("duck", "quacks", 2, "duckling", "bird"),
    ("goose", "honks", 2, "gosling", "bird"),
    ("owl", "hoots", 2, "owlet", "bird"),
    ("crow", "caws", 2, "chick", "bird"),
    ("pigeon", "coos", 2, "squab", "bird"),
    ("frog", "croaks", 4, "tadpole", "amphibian"),
    ("bee", "buzzes", 6, "larva", "insect"),
    ("snake", "hisses", 0, "hatchling", "reptile"),
    ("cricket", "chirps", 6, "nymph", "insect"),
];

/// Who, and what they do.
pub(super) const JOBS: [(&str, &str); 20] = [
    ("baker", "bakes bread"),
    ("farmer", "grows food"),
    ("teacher", "teaches children"),
    ("doctor", "heals people"),
    ("pilot", "flies planes"),
    ("sailor", "sails ships"),
    ("tailor", "sews clothes"),
    ("painter", "paints pictures"),
    ("writer", "writes books"),
    ("singer", "sings songs"),
    ("cook", "cooks meals"),
    ("gardener", "tends plants"),
    ("carpenter", "builds with wood"),
    ("smith", "works with iron"),
    ("fisher", "catches fish"),
    ("judge", "judges cases"),
    ("librarian", "lends books"),
    ("plumber", "mends pipes"),
    ("potter", "makes pots"),
    ("shepherd", "looks after sheep"),
];

pub(super) const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Month and its days.
pub(super) const MONTHS: [(&str, usize); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];

/// The season of a month of the north, by its place in the year.
pub(super) fn season(month: usize) -> &'static str {
    match month {
        2..=4 => "spring",
        5..=7 => "summer",
        8..=10 => "autumn",
        _ => "winter",
    }
}

pub(super) const NAMES: [&str; 24] = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jonas", "Kate", "Leo", "Mia", "Noah",
    "Olivia", "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Yara", "Zoe", "Mark",
];

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// A number below 100 in words.
pub(super) fn in_words(number: usize) -> String {
    match (number / 10, number % 10) {
        (0 | 1, _) => ONES[number].to_owned(),
        (tens, 0) => TENS[tens].to_owned(),
        (tens, ones) => format!("{}-{}", TENS[tens], ONES[ones]),
    }
}

/// `a dog`, `an owl`.
pub(super) fn with_article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

/// With its first letter large.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
